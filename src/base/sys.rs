//! Safe faces of the libc calls that std lacks. The only module, beside those that map memory, that may be `unsafe`.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::time::UnixSeconds;

/// Wall-clock fields in the time zone of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalTime {
    pub year: i32,
    /// 1..=12
    pub month: i32,
    /// 1..=31
    pub day: i32,
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
    /// Seconds east of Greenwich.
    pub utc_offset: i64,
}

/// `at` in the local time zone; the zero value when it lies beyond what the C library can name.
pub fn local_time(at: UnixSeconds) -> LocalTime {
    // SAFETY: `tm` is a C struct of integers and one pointer, for all of which zero bytes are a valid value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types, and localtime_r keeps neither.
    let known = unsafe { libc::localtime_r(&at.0, &mut tm) };
    if known.is_null() {
        return LocalTime::default();
    }
    LocalTime {
        year: tm.tm_year + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
        utc_offset: tm.tm_gmtoff,
    }
}

/// Makes descriptor 1 another name of `file`, in one step.
pub fn replace_stdout(file: &File) -> io::Result<()> {
    replace_fd(file, libc::STDOUT_FILENO)
}

/// Makes descriptor 2 another name of `file`, in one step.
pub fn replace_stderr(file: &File) -> io::Result<()> {
    replace_fd(file, libc::STDERR_FILENO)
}

fn replace_fd(file: &File, fd: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes two numbers; the callers pass standard descriptors only, which no Rust value owns.
    let done = unsafe { libc::dup2(file.as_raw_fd(), fd) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One descriptor to wait for, and what happened to it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Watched(libc::pollfd);

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    ReadWrite,
    /// Only that the other end hangs up.
    HangUp,
}

impl Watched {
    pub fn new(fd: BorrowedFd<'_>, interest: Interest) -> Self {
        let events = match interest {
            Interest::Read => libc::POLLIN,
            Interest::ReadWrite => libc::POLLIN | libc::POLLOUT,
            Interest::HangUp => libc::POLLRDHUP,
        };
        Watched(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 })
    }

    /// There is something to read, or the other end is gone (reading tells which).
    pub fn is_readable(&self) -> bool {
        self.0.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLRDHUP) != 0
    }

    pub fn is_writable(&self) -> bool {
        self.0.revents & libc::POLLOUT != 0
    }

    /// The descriptor cannot be waited for any more.
    pub fn is_invalid(&self) -> bool {
        self.0.revents & libc::POLLNVAL != 0
    }
}

/// Waits until something happens to one of the descriptors or `timeout` has passed (`None`: for ever). Returns how many
/// are ready; a signal ends the wait early with 0.
pub fn poll(watched: &mut [Watched], timeout: Option<Duration>) -> io::Result<usize> {
    let millis = match timeout {
        // Rounded up, so that a wait never ends just before its time.
        Some(time) => i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX),
        None => -1,
    };
    let count = libc::nfds_t::try_from(watched.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the count describe the slice, and `Watched` has the layout of `pollfd`.
    let ready = unsafe { libc::poll(watched.as_mut_ptr().cast(), count, millis) };
    match usize::try_from(ready) {
        Ok(ready) => Ok(ready),
        Err(_) => match io::Error::last_os_error() {
            interrupted if interrupted.kind() == io::ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        },
    }
}

/// Limits the memory that many short-lived threads leave behind: at most `arenas` heaps, and big blocks go back to the
/// system when they are freed. To be called before the first thread starts.
pub fn tune_malloc(arenas: i32) {
    /// glibc's first threshold; left alone it grows up to 32 MiB with what is freed.
    const BIG_BLOCK_BYTES: i32 = 128 * 1024;
    let settings = [
        (libc::M_ARENA_MAX, arenas),
        (libc::M_MMAP_THRESHOLD, BIG_BLOCK_BYTES),
        (libc::M_TRIM_THRESHOLD, BIG_BLOCK_BYTES),
    ];
    for (parameter, value) in settings {
        // SAFETY: mallopt takes two integers and refuses what it does not know.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Asks for the memory that a large buffer is going to be written to in large pages: a few faults instead of thousands.
pub fn prefer_huge_pages(buffer: &mut Vec<u8>) {
    const HUGE: usize = 2 << 20;
    let spare = buffer.spare_capacity_mut();
    if spare.len() < 2 * HUGE {
        return;
    }
    let skipped = spare.as_ptr().align_offset(HUGE);
    let Some(aligned) = spare.get_mut(skipped..) else { return };
    let length = aligned.len() / HUGE * HUGE;
    // SAFETY: the range lies within memory that `buffer` owns and borrows exclusively here; the advice changes how the
    // kernel backs it, not what it holds. Where there are no such pages it is refused, which costs nothing.
    unsafe { libc::madvise(aligned.as_mut_ptr().cast(), length, libc::MADV_HUGEPAGE) };
}

/// Gives free heap memory back to the system. Takes the allocator's locks for a moment.
pub fn trim_malloc() {
    // SAFETY: malloc_trim only touches the allocator's own free memory.
    unsafe { libc::malloc_trim(0) };
}

/// Gives back the pages of programs and libraries that only the start needed: symbols, relocations, code that runs once.
/// They are read again from their files when they are touched.
pub fn forget_start() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(unwritten) {
        // SAFETY: the mapping is private and backed by a file, and none of its pages was ever written (`unwritten`), so
        // what is dropped comes back unchanged. Other threads may read or run it meanwhile; the kernel sees to that.
        unsafe {
            libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED)
        };
    }
}

/// Address and length of a mapping that differs from its file in nothing: code, which is never writable, and the part
/// before it, which begins the file. What else is read-only has been relocated.
fn unwritten(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    let path = words.nth(2)?;
    let is_code = rights == "r-xp";
    let is_head = rights == "r--p" && offset.bytes().all(|digit| digit == b'0');
    if !path.starts_with('/') || !(is_code || is_head) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16));
    let start = start.ok()?;
    Some((start, end.ok()?.checked_sub(start)?))
}

/// The resolver could not be asked, or did not answer: what it would say is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

/// The name that DNS (or /etc/hosts) gives for an address, if it has one. Blocks as long as the resolver does.
pub fn host_name_of(ip: IpAddr) -> Result<Option<String>, NoAnswer> {
    let address = socket2::SockAddr::from(SocketAddr::new(ip, 0));
    let mut name = [0u8; 1025];
    let bytes = libc::socklen_t::try_from(name.len()).map_err(|_| NoAnswer)?;
    // SAFETY: `address` holds a valid socket address of the length it tells; `name` is writable for `bytes`, and
    // getnameinfo ends what it writes with a NUL. The service is not asked for.
    let failed = unsafe {
        libc::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            name.as_mut_ptr().cast(),
            bytes,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    match failed {
        0 => {
            let name = CStr::from_bytes_until_nul(&name).ok().and_then(|name| name.to_str().ok());
            Ok(name.map(str::to_owned))
        }
        libc::EAI_NONAME => Ok(None),
        _ => Err(NoAnswer),
    }
}

/// Whether a name has this address, by DNS or /etc/hosts. Blocks as long as the resolver does.
pub fn host_has_address(name: &str, ip: IpAddr) -> Result<bool, NoAnswer> {
    let Ok(name) = CString::new(name) else { return Ok(false) };
    // SAFETY: `addrinfo` is a C struct of integers and pointers, for all of which zero bytes are a valid value.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = libc::AF_UNSPEC;
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list: *mut libc::addrinfo = std::ptr::null_mut();
    // SAFETY: name and hints live through the call, and `list` is where it writes one pointer.
    let failed = unsafe {
        libc::getaddrinfo(name.as_ptr(), std::ptr::null(), &raw const hints, &raw mut list)
    };
    match failed {
        0 => {}
        libc::EAI_NONAME | libc::EAI_NODATA => return Ok(false),
        _ => return Err(NoAnswer),
    }
    let (mut next, mut found) = (list, false);
    // SAFETY: `next` is null or an entry of the list that getaddrinfo made, which nobody has freed yet.
    while let Some(entry) = unsafe { next.as_ref() } {
        let address = match entry.ai_family {
            libc::AF_INET => {
                // SAFETY: the family says that this is what it points to; such entries have an address.
                let v4 = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().as_ref() };
                v4.map(|v4| IpAddr::from(u32::from_be(v4.sin_addr.s_addr).to_be_bytes()))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().as_ref() };
                v6.map(|v6| IpAddr::from(v6.sin6_addr.s6_addr))
            }
            _ => None,
        };
        found |= address.is_some_and(|address| address.to_canonical() == ip);
        next = entry.ai_next;
    }
    // SAFETY: the list comes from getaddrinfo, and no reference into it is left.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

/// The number the kernel gives the calling thread, as `top -H` shows it.
pub fn thread_id() -> i32 {
    // SAFETY: gettid takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// How many files this process may have open.
pub fn open_files_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a writable rlimit.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if failed == 0 { limit.rlim_cur } else { 1024 }
}

/// Renames the calling thread for `top -H` and debuggers; the kernel keeps 15 bytes.
pub fn name_thread(name: &str) {
    let mut bytes: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    bytes.push(0);
    // SAFETY: the name ends with a zero byte, is at most 16 bytes long and is copied by the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// Wakes a thread that waits in [`poll`]; many signals make one wake.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: takes no pointers; the result is checked before it is used.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and nobody else owns it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Never blocks: a counter that is full has a waker already.
    pub fn signal(&self) {
        let one = 1u64;
        // SAFETY: the pointer is to eight live bytes, which the call only reads.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Takes back all signals so far.
    pub fn drain(&self) {
        let mut count = 0u64;
        // SAFETY: the pointer is to eight live bytes, which the call may overwrite.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Asks a process to end. `pid` must be a child that was not waited for yet, so that the number is still its own.
pub fn terminate(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes two numbers and touches no memory of ours.
    let done = unsafe { libc::kill(pid, libc::SIGTERM) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// From now on reads and writes of `fd` fail with `WouldBlock` instead of waiting.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed, and F_GETFL takes no further argument.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above; F_SETFL takes the flags as a number.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel knows of a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpState {
    /// Both directions are open, as far as anybody told us.
    pub established: bool,
    /// Segments sent that the other machine has not confirmed.
    pub unconfirmed: u32,
}

/// The state of a TCP socket; nothing of other sockets.
pub fn tcp_state(socket: BorrowedFd<'_>) -> TcpState {
    const ESTABLISHED: u8 = 1;
    // SAFETY: the C struct holds integers only, for which zero bytes are a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    // SAFETY: the pointers are to a live struct of `length` bytes and to that length.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    let established = failed == 0 && info.tcpi_state == ESTABLISHED;
    TcpState { established, unconfirmed: info.tcpi_unacked }
}

/// Bytes written to a socket that the other machine has not confirmed, whether or not they have left; 0 where that cannot
/// be known.
pub fn unsent_bytes(socket: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int, to which the pointer is.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if failed < 0 { 0 } else { usize::try_from(count).unwrap_or(0) }
}

/// Looks at received bytes without waiting and leaves them in the socket; 0 = the other end has closed.
pub fn peek(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the pointer and the length are those of the live slice.
    let got =
        unsafe { libc::recv(socket.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), flags) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

// ------------------------------------------------------------------ the process

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

pub fn is_root() -> bool {
    effective_uid() == 0
}

pub fn effective_uid() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The name of the user this process runs as; the number when it has none.
pub fn user_name() -> String {
    let uid = effective_uid();
    let user = look_up_user(|passwd, buffer, found| {
        // SAFETY: all pointers are to live values, the length is that of the buffer.
        unsafe { libc::getpwuid_r(uid, passwd, buffer.as_mut_ptr(), buffer.len(), found) }
    });
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

pub fn user(name: &str) -> Option<User> {
    let name = CString::new(name).ok()?;
    look_up_user(|passwd, buffer, found| {
        let name = name.as_ptr();
        // SAFETY: the name ends with a NUL, all pointers are to live values, the length is that of the buffer.
        unsafe { libc::getpwnam_r(name, passwd, buffer.as_mut_ptr(), buffer.len(), found) }
    })
}

fn look_up_user(
    ask: impl FnOnce(*mut libc::passwd, &mut [libc::c_char], *mut *mut libc::passwd) -> i32,
) -> Option<User> {
    // SAFETY: `passwd` is a C struct of integers and pointers, for all of which zero bytes are a valid value.
    let mut passwd: libc::passwd = unsafe { std::mem::zeroed() };
    let mut buffer = vec![0; 16 * 1024];
    let mut found = std::ptr::null_mut();
    let failed = ask(&raw mut passwd, &mut buffer, &raw mut found);
    if failed != 0 || found.is_null() {
        return None;
    }
    // SAFETY: a successful look-up left a NUL-terminated name inside `buffer`, which is still alive.
    let name = unsafe { CStr::from_ptr(passwd.pw_name) };
    Some(User { name: name.to_string_lossy().into_owned(), uid: passwd.pw_uid, gid: passwd.pw_gid })
}

/// Gives up root for good: groups, group and user. To be called before the first thread starts.
pub fn become_user(user: &User) -> io::Result<()> {
    let name = CString::new(user.name.as_str())?;
    // SAFETY: the name ends with a NUL and outlives the call.
    check(unsafe { libc::initgroups(name.as_ptr(), user.gid) })?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::setresgid(user.gid, user.gid, user.gid) })?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::setresuid(user.uid, user.uid, user.uid) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Leaves the terminal: the caller goes on in a grandchild, the processes before it end with success. To be called
/// before the first thread starts.
pub fn to_background() -> io::Result<()> {
    fork_and_leave()?;
    // SAFETY: setsid takes nothing; the fork before it made sure that this is no group leader.
    check(unsafe { libc::setsid() })?;
    fork_and_leave()
}

fn fork_and_leave() -> io::Result<()> {
    // SAFETY: the process has one thread, so the child finds no lock held by a thread that it lacks.
    match unsafe { libc::fork() } {
        0 => Ok(()),
        pid if pid > 0 => {
            // SAFETY: ends the process without running anything that the child runs too.
            unsafe { libc::_exit(0) }
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets which rights new files never get.
pub fn set_umask(mask: u32) {
    // SAFETY: umask takes a number and cannot fail.
    unsafe { libc::umask(mask) };
}

/// Closes every descriptor but the standard three, as inherited from whoever started us. To be called first of all.
pub fn close_inherited() {
    // SAFETY: nothing in this process owns a descriptor above 2 yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// Sets a variable of our own environment, which plugins inherit. To be called before the first thread starts.
pub fn set_env(name: &str, value: &str) {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return;
    }
    // SAFETY: the process has one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var(name, value) };
}

/// Makes the C library look at `TZ` again.
pub fn read_time_zone() {
    unsafe extern "C" {
        safe fn tzset();
    }
    tzset();
}

/// The short name of the time zone in force, `CEST` for instance.
pub fn time_zone_name(at: UnixSeconds) -> String {
    // SAFETY: `tm` is a C struct of integers and one pointer, for all of which zero bytes are a valid value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types, and localtime_r keeps neither.
    let known = unsafe { libc::localtime_r(&at.0, &mut tm) };
    if known.is_null() || tm.tm_zone.is_null() {
        return String::new();
    }
    // SAFETY: localtime_r left a NUL-terminated name that the C library keeps.
    let name = unsafe { CStr::from_ptr(tm.tm_zone) };
    name.to_string_lossy().into_owned()
}

/// The scheduling policies of the kernel that netdata.conf can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    Other,
    Batch,
    Idle,
    RoundRobin(i32),
    Fifo(i32),
}

/// Sets the policy of this thread and of those it starts later.
pub fn set_scheduling(scheduling: Scheduling) -> io::Result<()> {
    let (policy, priority) = match scheduling {
        Scheduling::Other => (libc::SCHED_OTHER, 0),
        Scheduling::Batch => (libc::SCHED_BATCH, 0),
        Scheduling::Idle => (libc::SCHED_IDLE, 0),
        Scheduling::RoundRobin(priority) => (libc::SCHED_RR, priority),
        Scheduling::Fifo(priority) => (libc::SCHED_FIFO, priority),
    };
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter outlives the call; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) })
}

/// Sets the nice level of this thread and of those it starts later.
pub fn set_nice(level: i32) -> io::Result<()> {
    // SAFETY: takes numbers only; 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, level) })
}

/// As [`try_lock`], with patience: a process that was killed while it started another leaves its locks to that one for a
/// moment.
pub fn lock(file: &File) -> io::Result<bool> {
    for _ in 0..10 {
        if try_lock(file)? {
            return Ok(true);
        }
        poll(&mut [], Some(Duration::from_millis(50)))?;
    }
    try_lock(file)
}

/// Takes the lock of an open file for as long as it stays open; false when another process has it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is that of a live file.
    let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    match check(result) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a file `length` bytes that are really there, zero where new, so that later writes through a mapping cannot run
/// out of disk.
pub fn allocate(file: &File, length: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(length).map_err(io::Error::other)?;
    // SAFETY: plain system call on an open descriptor.
    let failed = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

// --- asked by the internal collectors ---------------------------------------------------------------

/// For files that may turn out to be pipes or devices: opening them does not wait.
pub const NONBLOCKING: i32 = libc::O_NONBLOCK;

/// Bytes of a page of memory.
pub fn page_size() -> i64 {
    // SAFETY: sysconf takes a number and has no other effect.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    if size > 0 { size } else { 4096 }
}

/// Of the kernel's clock, per second: what it tells the time of threads in.
pub fn clock_ticks() -> i64 {
    // SAFETY: sysconf takes a number and has no other effect.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks } else { 100 }
}

/// Milliseconds since the machine was started, suspended time included.
pub fn uptime_ms() -> Option<i64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a writable timespec.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    (failed == 0).then(|| time.tv_sec * 1000 + time.tv_nsec / 1_000_000)
}

/// Microseconds this process has spent on a processor, in its own code and in the kernel.
pub fn process_times_us() -> (i64, i64) {
    // SAFETY: the C struct holds integers only, for which zero bytes are a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a writable rusage.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let us = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    (us(usage.ru_utime), us(usage.ru_stime))
}

/// Microseconds the calling thread has spent on a processor, in its own code and in the kernel.
pub fn thread_times_us() -> (i64, i64) {
    // SAFETY: the C struct holds integers only, for which zero bytes are a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a writable rusage.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    let us = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    (us(usage.ru_utime), us(usage.ru_stime))
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of a block.
    pub unit: i64,
    pub blocks: i64,
    pub free: i64,
    /// Of the free ones, what users other than root may take.
    pub available: i64,
    pub files: i64,
    pub free_files: i64,
    pub available_files: i64,
}

/// Asks the file system that holds `path`. May take as long as the file system likes.
pub fn disk_usage(path: &Path) -> io::Result<DiskUsage> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the C struct holds integers only, for which zero bytes are a valid value.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero byte and `about` is writable; neither is kept.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut about) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let unit = if about.f_frsize == 0 { about.f_bsize } else { about.f_frsize };
    Ok(DiskUsage {
        unit: count(unit),
        blocks: count(about.f_blocks),
        free: count(about.f_bfree),
        available: count(about.f_bavail),
        files: count(about.f_files),
        free_files: count(about.f_ffree),
        available_files: count(about.f_favail),
    })
}

/// Whether `path` lies in procfs or sysfs.
pub fn is_kernel_file_system(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the C struct holds integers only, for which zero bytes are a valid value.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero byte and `about` is writable; neither is kept.
    let failed = unsafe { libc::statfs(path.as_ptr(), &raw mut about) };
    failed == 0 && [libc::PROC_SUPER_MAGIC, libc::SYSFS_MAGIC].contains(&about.f_type)
}

/// A doorbell the kernel rings when a network interface changes: comes, goes, or its link does.
pub struct LinkEvents(OwnedFd);

impl LinkEvents {
    pub fn subscribe() -> io::Result<LinkEvents> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes numbers only; the result is checked before it is used.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the C struct holds integers only, for which zero bytes are a valid value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or_default();
        address.nl_groups = libc::RTMGRP_LINK.cast_unsigned();
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).unwrap_or(0);
        // SAFETY: the pointer is to a live address of `length` bytes, which the call only reads.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
        Ok(LinkEvents(socket))
    }

    /// Whether it rang since the last call.
    pub fn rang(&self) -> bool {
        let mut rang = false;
        loop {
            let mut start = 0u8;
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            // SAFETY: the pointer is to one live byte; the rest of each message is thrown away.
            let got = unsafe { libc::recv(self.0.as_raw_fd(), (&raw mut start).cast(), 1, flags) };
            if got < 0 {
                // Too many messages to keep is as good as a message.
                let lost = io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS);
                return rang | lost;
            }
            rang = true;
        }
    }
}

/// Major and minor number of a device.
pub fn device_numbers(device: u64) -> (u64, u64) {
    (u64::from(libc::major(device)), u64::from(libc::minor(device)))
}

/// What the kernel says of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockDiscipline {
    /// Usable: not in the error state.
    pub synchronized: bool,
    /// Nobody keeps it right.
    pub unsynchronized: bool,
    /// Its hardware is broken.
    pub error: bool,
    pub offset_us: i64,
}

pub fn clock_discipline() -> io::Result<ClockDiscipline> {
    // SAFETY: the C struct holds integers only, for which zero bytes are a valid value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` is writable, and with no mode set the call changes nothing.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    let nanoseconds = timex.status & libc::STA_NANO != 0;
    Ok(ClockDiscipline {
        synchronized: state != libc::TIME_ERROR,
        unsynchronized: timex.status & libc::STA_UNSYNC != 0,
        error: timex.status & libc::STA_CLOCKERR != 0,
        offset_us: if nanoseconds { timex.offset / 1000 } else { timex.offset },
    })
}

/// System V semaphores in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SemaphoresInUse {
    pub arrays: i64,
    pub semaphores: i64,
}

pub fn semaphores_in_use() -> io::Result<SemaphoresInUse> {
    // SAFETY: the C struct holds integers only, for which zero bytes are a valid value.
    let mut info: libc::seminfo = unsafe { std::mem::zeroed() };
    // SAFETY: SEM_INFO writes to the seminfo it is given and ignores the first two numbers.
    if unsafe { libc::semctl(0, 0, libc::SEM_INFO, &raw mut info) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // With SEM_INFO these two fields hold what is in use instead of limits.
    Ok(SemaphoresInUse { arrays: info.semusz.into(), semaphores: info.semaem.into() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_wait_ends_when_there_is_something_to_read() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut watched = [Watched::new(there.as_fd(), Interest::Read)];
        assert_eq!(poll(&mut watched, Some(Duration::from_millis(1))).unwrap(), 0);
        assert!(!watched[0].is_readable());
        here.write_all(b"x").unwrap();
        assert_eq!(poll(&mut watched, None).unwrap(), 1);
        assert!(watched[0].is_readable());
        let mut watched = [Watched::new(there.as_fd(), Interest::HangUp)];
        drop(here);
        assert_eq!(poll(&mut watched, None).unwrap(), 1);
    }

    #[test]
    fn limits_and_ids_are_there() {
        assert!(open_files_limit() > 0);
        assert!(thread_id() > 0);
        tune_malloc(1);
        trim_malloc();
    }

    #[test]
    fn pages_of_the_start_are_forgotten_and_come_back() {
        let before = local_time(UnixSeconds(1_700_000_000));
        forget_start();
        assert_eq!(local_time(UnixSeconds(1_700_000_000)), before);
        let line = |rights: &str, offset: &str, path: &str| {
            unwritten(&format!("7f00a000-7f00c000 {rights} {offset} 08:01 42   {path}"))
        };
        let whole = Some((0x7f00_a000, 0x2000));
        assert_eq!(line("r-xp", "00001000", "/usr/lib/libc.so.6"), whole);
        assert_eq!(line("r--p", "00000000", "/usr/lib/libc.so.6"), whole);
        // Relocated, writable, shared, or no file.
        assert_eq!(line("r--p", "00003000", "/usr/lib/libc.so.6"), None);
        assert_eq!(line("rw-p", "00000000", "/usr/lib/libc.so.6"), None);
        assert_eq!(line("r--s", "00000000", "/var/cache/file"), None);
        assert_eq!(line("r-xp", "00000000", "[vdso]"), None);
        assert_eq!(unwritten("7f00a000-7f00c000 r-xp 00000000 00:00 0"), None);
    }

    #[test]
    fn root_has_a_name() {
        assert_eq!(user("root").unwrap().uid, 0);
        assert_eq!(user("no such user"), None);
        assert!(!user_name().is_empty());
    }

    #[test]
    fn a_file_is_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let open =
            || File::options().append(true).create(true).open(dir.path().join("lock")).unwrap();
        let (first, second) = (open(), open());
        assert!(try_lock(&first).unwrap());
        assert!(!try_lock(&second).unwrap());
        drop(first);
        assert!(try_lock(&second).unwrap());
    }

    #[test]
    fn local_time_is_the_time_plus_the_offset() {
        let noon = local_time(UnixSeconds(1_700_000_000));
        let of_day = (1_700_000_000 + noon.utc_offset).rem_euclid(86_400);
        assert_eq!(i64::from(noon.hour * 3600 + noon.minute * 60 + noon.second), of_day);
        assert_eq!((noon.year, noon.month), (2023, 11));
        assert_eq!(local_time(UnixSeconds(i64::MAX)), LocalTime::default());
    }

    #[test]
    fn a_signal_ends_a_wait_once() {
        let event = EventFd::new().unwrap();
        let wait = |ms| {
            let mut watched = [Watched::new(event.as_fd(), Interest::Read)];
            poll(&mut watched, Some(Duration::from_millis(ms))).unwrap()
        };
        assert_eq!(wait(0), 0);
        event.signal();
        event.signal();
        assert_eq!(wait(1000), 1);
        event.drain();
        assert_eq!(wait(0), 0);
    }
}
