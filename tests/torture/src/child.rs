//! Children made by hand: they define charts and send samples with times of their own, in any order.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::agent::KEY;
use crate::model::Chart;

/// All that 1.37.1 knows but compression and replication, the interpolated form, binary numbers and slots on top.
const CAPABILITIES: u32 = (15352 & !(1 << 12)) | (1 << 14) | (1 << 15) | (1 << 18);

pub struct FakeChild {
    socket: TcpStream,
    text: String,
}

impl FakeChild {
    pub fn connect(parent: SocketAddr, number: usize) -> io::Result<FakeChild> {
        let mut socket = TcpStream::connect(parent)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        socket.set_write_timeout(Some(Duration::from_secs(20)))?;
        let head = format!(
            "STREAM key={KEY}&hostname=child{number}&registry_hostname=child{number}\
             &machine_guid={number:08x}-7047-4000-8000-000000000000&update_every=1&os=linux&timezone=UTC\
             &abbrev_timezone=UTC&utc_offset=0&hops=1&tags=&ver={CAPABILITIES}&NETDATA_SYSTEM_OS_NAME=Testix\
             &NETDATA_SYSTEM_OS_ID=testix&NETDATA_SYSTEM_OS_VERSION=1&NETDATA_SYSTEM_KERNEL_NAME=Linux\
             &NETDATA_SYSTEM_KERNEL_VERSION=6.0&NETDATA_SYSTEM_ARCHITECTURE=x86_64&NETDATA_PROTOCOL_VERSION=1.1 HTTP/1.1\r\n\
             User-Agent: netdata/v1.37.1\r\nAccept: */*\r\n\r\n"
        );
        socket.write_all(head.as_bytes())?;
        let mut answer = [0; 4096];
        let got = socket.read(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..got]).into_owned();
        if !answer.contains("version=") {
            return Err(io::Error::other(format!("child {number} was told '{answer}'")));
        }
        Ok(FakeChild { socket, text: String::new() })
    }

    pub fn define(&mut self, chart: &Chart) {
        let _ = writeln!(
            self.text,
            "CHART \"{}\" \"\" \"A chart\" \"things/s\" \"torture\" \"torture.chart\" \"line\" 1000 {} \"\" \"rig\" \"rig\"",
            chart.id, chart.every
        );
        for d in 0..chart.dimensions {
            let _ = writeln!(self.text, "DIMENSION \"d{d}\" \"d{d}\" \"absolute\" 1 1 \"\"");
        }
    }

    /// A slot of a chart; dimensions without a value are left out.
    pub fn slot(&mut self, chart: &Chart, time: i64, values: &[(usize, u32)]) {
        let _ = writeln!(self.text, "BEGIN2 '{}' {} {time} #", chart.id, chart.every);
        for (dimension, value) in values {
            let _ = writeln!(self.text, "SET2 'd{dimension}' {value} # A");
        }
        self.text.push_str("END2\n");
    }

    /// Says that no more comes, and waits until the parent has read all of it and closes.
    pub fn finish(mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)?;
        let mut rest = [0; 4096];
        while self.socket.read(&mut rest)? > 0 {}
        Ok(())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        let sent = self.socket.write_all(self.text.as_bytes());
        self.text.clear();
        sent
    }
}
