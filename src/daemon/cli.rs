//! `netdatacli`: sends one command to a running agent over its control socket and prints the answer.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use super::control::{FILE_NAME, OLD_PATH, VARIABLE};
use crate::base::ids::parse_uuid;
use crate::config::keys;

/// The exit code when there is no agent, or it made no sense.
const NO_AGENT: u8 = 255;
/// Longest answer we print.
const ANSWER_MAX: u64 = 1 << 20;

/// Runs the client; the exit code is the agent's answer, 255 when there is no agent.
pub fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|command| command == "check-health") {
        // The agent works in another directory.
        for file in words.iter_mut().skip(1) {
            if let Ok(path) = std::path::absolute(&*file) {
                *file = path.to_string_lossy().into_owned();
            }
        }
    }
    if words.first().is_some_and(|command| command == "key") {
        return key(&words[1..]);
    }
    ExitCode::from(match ask(&words.join(" ")) {
        Ok(answer) => print(&answer),
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "uv_pipe_connect(): {error}\nMake sure the netdata service is running."
            );
            NO_AGENT
        }
    })
}

/// `key new`, `key hash KEY`: makes an API key, or the section that stands for one in a parent's stream.conf. Needs no agent.
fn key(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = match words[..] {
        ["new"] => {
            let key = uuid::Uuid::new_v4().to_string();
            format!("{key}\n[{}]", keys::hashed(&key))
        }
        ["hash", key] if parse_uuid(key).is_ok() => format!("[{}]", keys::hashed(key)),
        _ => {
            let _ = writeln!(
                io::stderr(),
                "key new: prints a new API key and, below it, the section for a parent that need not know the key.\n\
                 key hash KEY: prints that section of a key, which is a GUID."
            );
            return ExitCode::FAILURE;
        }
    };
    // A closed terminal is nobody to complain to.
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::SUCCESS
}

/// Where an agent may listen: as the environment says, in the run directories, at the old fixed path.
fn candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return vec![PathBuf::from(path)];
    }
    let run = |dir: &str| PathBuf::from(dir).join(FILE_NAME);
    vec![run("/run/netdata"), run("/var/run/netdata"), PathBuf::from(OLD_PATH)]
}

fn ask(command: &str) -> io::Result<Vec<u8>> {
    let mut failed = io::ErrorKind::NotFound.into();
    for path in candidates() {
        match UnixStream::connect(path) {
            Ok(mut socket) => {
                socket.write_all(command.as_bytes())?;
                socket.shutdown(Shutdown::Write)?;
                let mut answer = Vec::new();
                socket.take(ANSWER_MAX).read_to_end(&mut answer)?;
                return Ok(answer);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Prints both streams of an answer and returns its exit code.
fn print(answer: &[u8]) -> u8 {
    let answer = String::from_utf8_lossy(answer);
    let (code, texts) = take_apart(&answer);
    for (stream, text) in texts {
        // A closed terminal is nobody to complain to.
        let _ = match stream {
            'O' => writeln!(io::stdout(), "{text}"),
            _ => writeln!(io::stderr(), "{text}"),
        };
    }
    code
}

fn take_apart(answer: &str) -> (u8, Vec<(char, &str)>) {
    let mut code = NO_AGENT;
    let mut texts = Vec::new();
    for part in answer.split('\0') {
        let mut letters = part.chars();
        match letters.next() {
            Some('X') => code = letters.as_str().parse().unwrap_or(NO_AGENT),
            Some(stream @ ('O' | 'E')) => texts.push((stream, letters.as_str())),
            _ => {}
        }
    }
    (code, texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_code_and_texts() {
        assert_eq!(take_apart("X0\0Opong\0"), (0, vec![('O', "pong")]));
        assert_eq!(take_apart("X1\0Ebad"), (1, vec![('E', "bad")]));
        assert_eq!(take_apart(""), (NO_AGENT, vec![]));
    }
}
