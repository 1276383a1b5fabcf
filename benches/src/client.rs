//! A client of the API that keeps its connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub struct Client {
    socket: BufReader<TcpStream>,
    /// The body read last.
    body: Vec<u8>,
}

impl Client {
    pub fn connect(agent: SocketAddr) -> io::Result<Client> {
        let socket = TcpStream::connect(agent)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client { socket: BufReader::with_capacity(1 << 16, socket), body: Vec::new() })
    }

    /// Asks and reads the whole answer, which must be a 200; gives its length.
    pub fn get(&mut self, path: &str) -> io::Result<usize> {
        self.ask(path)?;
        Ok(self.body.len())
    }

    /// As [`Client::get`], and gives the answer itself.
    pub fn body(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.ask(path)?;
        Ok(std::mem::take(&mut self.body))
    }

    /// The body goes into the memory of the one before: what is measured is the agent.
    fn ask(&mut self, path: &str) -> io::Result<()> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: keep-alive\r\n\r\n");
        self.socket.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        self.socket.read_line(&mut line)?;
        if !line.contains(" 200 ") {
            return Err(io::Error::other(format!("'{path}' is answered by '{}'", line.trim())));
        }
        while line != "\r\n" {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
            if self.socket.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.body.resize(length, 0);
        self.socket.read_exact(&mut self.body)
    }
}
