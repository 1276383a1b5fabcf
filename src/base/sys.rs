//! Safe faces of the libc calls that std lacks. The only module, beside those that map memory, that may be `unsafe`.
