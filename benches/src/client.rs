//! A client of the API that keeps its connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(agent: SocketAddr) -> io::Result<Client> {
        let socket = TcpStream::connect(agent)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client(BufReader::with_capacity(1 << 16, socket)))
    }

    /// Asks and reads the whole answer, which must be a 200; gives its length.
    pub fn get(&mut self, path: &str) -> io::Result<usize> {
        Ok(self.body(path)?.len())
    }

    /// As [`Client::get`], and gives the answer itself.
    pub fn body(&mut self, path: &str) -> io::Result<Vec<u8>> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: keep-alive\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line)?;
        if !line.contains(" 200 ") {
            return Err(io::Error::other(format!("'{path}' is answered by '{}'", line.trim())));
        }
        while line != "\r\n" {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(body)
    }
}
