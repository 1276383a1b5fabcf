//! Children made by hand: they define charts and send ticks of samples, in the old form or the new one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::agent::KEY;

/// All that 1.37.1 knows but compression and replication.
const OLD: u32 = 15352 & !(1 << 12);
const REPLICATION: u32 = 1 << 12;
/// The interpolated form, binary numbers and slots on top.
const NEW: u32 = OLD | (1 << 14) | (1 << 15) | (1 << 18);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// BEGIN, SET, END with collected integers: all that 1.37.1 has.
    V1,
    /// BEGIN2, SET2, END2 with slots and final values in base64.
    V2,
    /// Nothing but the past: RBEGIN, RSET, REND, which both have.
    Past,
    /// The same with slots and numbers in base64.
    NewPast,
}

impl Form {
    pub fn caps(self) -> u32 {
        match self {
            Form::V1 => OLD,
            Form::Past => OLD | REPLICATION,
            Form::V2 => NEW,
            Form::NewPast => NEW | REPLICATION,
        }
    }
}

#[derive(Clone, Copy)]
pub struct Shape {
    pub charts: u32,
    pub dimensions: u32,
}

impl Shape {
    pub fn samples(self) -> u64 {
        u64::from(self.charts) * u64::from(self.dimensions)
    }
}

pub struct FakeChild {
    socket: TcpStream,
    form: Form,
    shape: Shape,
    /// What differs from tick to tick is written over a text made once.
    text: Vec<u8>,
    /// End of the next point, for the new form.
    at: i64,
    value: u32,
}

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

pub fn base64(out: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = (64 - number.leading_zeros()).div_ceil(6).max(1);
    for n in (0..digits).rev() {
        out.push(DIGITS[(number >> (6 * n)) as usize & 63]);
    }
}

/// The identity of a child of that number.
pub fn guid(n: u32) -> String {
    format!("{n:08x}-bec0-4000-8000-{:012x}", std::process::id())
}

/// Connects and is accepted; the parent's answer beside the connection.
pub fn handshake(parent: SocketAddr, number: u32, caps: u32) -> io::Result<(TcpStream, String)> {
    let mut socket = TcpStream::connect(parent)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    socket.set_write_timeout(Some(Duration::from_secs(60)))?;
    let head = format!(
        "STREAM key={KEY}&hostname=load{number}&registry_hostname=load{number}&machine_guid={}&update_every=1&os=linux\
         &timezone=UTC&abbrev_timezone=UTC&utc_offset=0&hops=1&tags=&ver={}&NETDATA_SYSTEM_OS_NAME=Testix\
         &NETDATA_SYSTEM_OS_ID=testix&NETDATA_SYSTEM_OS_VERSION=1&NETDATA_SYSTEM_KERNEL_NAME=Linux\
         &NETDATA_SYSTEM_KERNEL_VERSION=6.0&NETDATA_SYSTEM_ARCHITECTURE=x86_64&NETDATA_PROTOCOL_VERSION=1.1 HTTP/1.1\r\n\
         User-Agent: netdata/v1.37.1\r\nAccept: */*\r\n\r\n",
        guid(number),
        caps
    );
    socket.write_all(head.as_bytes())?;
    let mut answer = [0; 4096];
    let got = socket.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..got]).into_owned();
    Ok((socket, answer))
}

impl FakeChild {
    /// Connects, is accepted and defines its charts. `at` is the time of its first point.
    pub fn connect(
        parent: SocketAddr,
        number: u32,
        form: Form,
        shape: Shape,
        at: i64,
    ) -> io::Result<FakeChild> {
        let (socket, answer) = handshake(parent, number, form.caps())?;
        let agreed =
            answer.rsplit('=').next().and_then(|n| n.trim().parse::<u32>().ok()).unwrap_or(0);
        let wanted = form.caps() & !0b11_1000;
        if agreed & ((1 << 14) | (1 << 15) | (1 << 18))
            != wanted & ((1 << 14) | (1 << 15) | (1 << 18))
        {
            return Err(io::Error::other(format!(
                "child {number} wanted capabilities {wanted}, was told '{answer}'"
            )));
        }
        let mut child = FakeChild { socket, form, shape, text: Vec::new(), at, value: number };
        child.define()?;
        Ok(child)
    }

    /// The same with `seconds` of samples behind it, which it hands over as replication: of one chart, in the old form.
    pub fn with_a_past(
        parent: SocketAddr,
        number: u32,
        shape: Shape,
        seconds: i64,
    ) -> io::Result<FakeChild> {
        let (socket, _) = handshake(parent, number, OLD | REPLICATION)?;
        let now = now();
        let (form, value) = (Form::V1, number);
        let mut child = FakeChild { socket, form, shape, text: Vec::new(), at: now, value };
        child.define()?;
        let (first, last) = (now - seconds, now - 1);
        let end = format!("CHART_DEFINITION_END {first} {last} {now}\n");
        child.socket.write_all(end.as_bytes())?;
        let mut text = Vec::new();
        let mut lines = BufReader::new(child.socket.try_clone()?);
        let mut line = String::new();
        while !line.starts_with("REPLAY_CHART") {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        text.extend_from_slice(b"RBEGIN \"load.chart1\"\n");
        for t in first..=last {
            let _ = writeln!(text, "RBEGIN '' {} {t} {now}", t - 1);
            for dimension in 1..=shape.dimensions {
                let value = (t * i64::from(dimension)) % 1000;
                let _ = writeln!(text, "RSET \"dimension{dimension}\" {value}.25 \"\"");
            }
        }
        let _ = writeln!(text, "REND 1 {first} {last} true {first} {last} {now}");
        child.socket.write_all(&text)?;
        Ok(child)
    }

    fn slot(&self, text: &mut Vec<u8>, number: u32) {
        if matches!(self.form, Form::V2 | Form::NewPast) {
            text.extend_from_slice(b" SLOT:#");
            base64(text, u64::from(number));
        }
    }

    fn define(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        for c in 1..=self.shape.charts {
            text.extend_from_slice(b"CHART");
            self.slot(&mut text, c);
            writeln!(
                text,
                " \"load.chart{c}\" \"\" \"Chart {c} of a load\" \"things/s\" \"load\" \"load.chart\" \"line\" {} 1 \"\" \"load\" \"bench\"",
                1000 + c
            )?;
            for d in 1..=self.shape.dimensions {
                text.extend_from_slice(b"DIMENSION");
                self.slot(&mut text, d);
                writeln!(text, " \"dimension{d}\" \"dimension{d}\" \"absolute\" 1 1000 \"\"")?;
            }
        }
        self.socket.write_all(&text)
    }

    /// Appends one tick of all charts to `text`.
    fn tick_text(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        for c in 1..=self.shape.charts {
            match self.form {
                Form::V1 | Form::Past | Form::NewPast => {
                    let _ = writeln!(text, "BEGIN \"load.chart{c}\" 1000000");
                    for d in 1..=self.shape.dimensions {
                        let _ = writeln!(text, "SET \"dimension{d}\" = {}", self.next_value());
                    }
                    text.extend_from_slice(b"END\n");
                }
                Form::V2 => {
                    text.extend_from_slice(b"BEGIN2");
                    self.slot(&mut text, c);
                    let _ = write!(text, " 'load.chart{c}' #B #");
                    base64(&mut text, self.at as u64);
                    text.extend_from_slice(b" #\n");
                    for d in 1..=self.shape.dimensions {
                        let value = self.next_value();
                        text.extend_from_slice(b"SET2");
                        self.slot(&mut text, d);
                        let _ = write!(text, " 'dimension{d}' #");
                        base64(&mut text, u64::from(value));
                        text.extend_from_slice(b" @");
                        base64(&mut text, (f64::from(value) / 1000.0).to_bits());
                        text.extend_from_slice(b" A\n");
                    }
                    text.extend_from_slice(b"END2\n");
                }
            }
        }
        self.text = text;
    }

    /// Some number that is no whole one when divided by a thousand; the sequence is the same in every run.
    fn next_value(&mut self) -> u32 {
        self.value = self.value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.value >> 8) | 1
    }

    /// Sends what every dimension had in the seconds `after..before`, an hour of all charts at a time. `value` is asked for
    /// every second of a dimension (counted through all charts), forwards.
    pub fn past(
        &mut self,
        after: i64,
        before: i64,
        value: &mut dyn FnMut(usize, i64) -> Option<f64>,
    ) -> io::Result<()> {
        const STEP: i64 = 3600;
        let is_new = self.form == Form::NewPast;
        let mut names = Vec::new();
        for d in 1..=self.shape.dimensions {
            let mut name = b"RSET".to_vec();
            self.slot(&mut name, d);
            name.extend_from_slice(format!(" \"dimension{d}\" ").as_bytes());
            names.push(name);
        }
        let (mut text, wall) = (Vec::new(), now() + 5);
        let mut from = after;
        while from < before {
            let to = before.min(from + STEP);
            for c in 1..=self.shape.charts {
                text.clear();
                text.extend_from_slice(b"RBEGIN");
                self.slot(&mut text, c);
                let _ = writeln!(text, " \"load.chart{c}\"");
                for at in from..to {
                    text.extend_from_slice(b"RBEGIN");
                    self.slot(&mut text, c);
                    text.extend_from_slice(b" ''");
                    for time in [at, at + 1, wall] {
                        if is_new {
                            text.extend_from_slice(b" #");
                            base64(&mut text, time as u64);
                        } else {
                            let _ = write!(text, " {time}");
                        }
                    }
                    text.push(b'\n');
                    for (d, name) in names.iter().enumerate() {
                        let number = (c as usize - 1) * names.len() + d;
                        text.extend_from_slice(name);
                        match value(number, at + 1) {
                            Some(value) if is_new => {
                                text.push(b'@');
                                base64(&mut text, value.to_bits());
                                text.extend_from_slice(b" \"A\"\n");
                            }
                            Some(value) => {
                                let _ = writeln!(text, "{value} \"\"");
                            }
                            None => text.extend_from_slice(b"nan \"E\"\n"),
                        }
                    }
                }
                let _ = writeln!(text, "REND 1 {after} {before} true {from} {to} {wall}");
                self.socket.write_all(&text)?;
            }
            from = to;
        }
        Ok(())
    }

    /// Sends one sample of every dimension.
    pub fn tick(&mut self) -> io::Result<()> {
        self.tick_text();
        self.at += 1;
        self.socket.write_all(&self.text)
    }

    /// Says that no more comes, and waits until the parent has read all of it and closes.
    pub fn finish(self) -> io::Result<()> {
        finish(self.socket)
    }
}

/// The same for a bare connection.
pub fn finish(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown(Shutdown::Write)?;
    let mut rest = [0; 4096];
    loop {
        match socket.read(&mut rest) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}
