//! /proc/net/netstat, /proc/net/snmp and /proc/net/snmp6: counters of IP, ICMP, TCP and UDP.
//!
//! One module, as charts of one file need values of another. A chart comes into being when one of its deciding
//! dimensions is not zero; which those are was observed on the original.

use super::Source;
use crate::ingest::collectors::chart::{At, CHART, ChartDef, Site, absolute, incremental};
use crate::ingest::collectors::keyed::{HeadedLayout, KeyedDef, KeyedRows, LineLayout};
use crate::ingest::collectors::lanes::{After, Tick};
use crate::ingest::collectors::procfile::ProcFile;
use crate::ingest::collectors::setup::Setup;
use crate::metrics::ChartType;

pub const NAME: &str = "/proc/net/netstat";
const SECTION: &str = "plugin:proc:/proc/net/netstat";
const SECTION_SNMP: &str = "plugin:proc:/proc/net/snmp";
const SECTION_SNMP6: &str = "plugin:proc:/proc/net/snmp6";

struct NetStat {
    site: Site,
    netstat: Option<(ProcFile, HeadedLayout)>,
    snmp: Option<(ProcFile, HeadedLayout)>,
    snmp6: Option<(ProcFile, LineLayout)>,
    rows: KeyedRows,
    rows6: KeyedRows,
    max_connections: usize,
    /// As last told to the host.
    max_connections_told: Option<i64>,
}

pub fn make(setup: &Setup) -> Option<Box<dyn Source>> {
    let open =
        |section, default| ProcFile::open(setup.path(section, "filename to monitor", default));
    let netstat = open(SECTION, NAME).map(|file| (file, HeadedLayout::default()));
    let snmp = open(SECTION_SNMP, "/proc/net/snmp").map(|file| (file, HeadedLayout::default()));
    let snmp6 = open(SECTION_SNMP6, "/proc/net/snmp6").map(|file| (file, LineLayout::default()));
    if netstat.is_none() && snmp.is_none() && snmp6.is_none() {
        return None;
    }
    let mut rows = KeyedRows::new(setup, &[(SECTION, NETSTAT), (SECTION_SNMP, SNMP)]);
    let max_connections = rows.keys().slot("Tcp", "MaxConn");
    Some(Box::new(NetStat {
        site: setup.proc_site(NAME),
        netstat,
        snmp,
        snmp6,
        rows,
        rows6: KeyedRows::new(setup, &[(SECTION_SNMP6, SNMP6)]),
        max_connections,
        max_connections_told: None,
    }))
}

impl Source for NetStat {
    fn collect(&mut self, tick: &mut Tick<'_>) -> After {
        let at = At::new(&self.site, tick.now);
        self.rows.clear();
        let mut read = false;
        for (file, layout) in [&mut self.netstat, &mut self.snmp].into_iter().flatten() {
            if let Some(text) = file.read(tick.buffer) {
                layout.read(text, self.rows.keys());
                read = true;
            }
        }
        if read {
            self.rows.collect(at);
            let found = self.rows.keys().find(self.max_connections);
            if let Some(most) = found.filter(|_| found != self.max_connections_told) {
                self.max_connections_told = found;
                #[expect(clippy::cast_precision_loss, reason = "-1 or a number of connections")]
                self.site.host.set_variable("tcp_max_connections", most as f64);
            }
        }
        if let Some((file, layout)) = &mut self.snmp6
            && let Some(text) = file.read(tick.buffer)
        {
            layout.read(text, self.rows6.keys());
            self.rows6.collect(at);
        }
        After::Again
    }
}

static NETSTAT: &[KeyedDef] = &[
    KeyedDef {
        option: "bandwidth",
        group: "IpExt",
        chart: ChartDef {
            id: "system.ip",
            title: "Traffic of IP, both versions",
            units: "kilobits/s",
            family: "network",
            chart_type: ChartType::Area,
            priority: 501,
            dims: &[
                incremental("InOctets").named("received").scaled(8, 1000),
                incremental("OutOctets").named("sent").scaled(8, 1000).negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "input errors",
        group: "IpExt",
        chart: ChartDef {
            id: "ip.inerrors",
            title: "IP packets that came in and were not usable",
            units: "packets/s",
            family: "errors",
            priority: 4100,
            detail: true,
            deciding: 2,
            dims: &[
                incremental("InNoRoutes").named("noroutes"),
                incremental("InTruncatedPkts").named("truncated"),
                incremental("InCsumErrors").named("checksum"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "multicast bandwidth",
        group: "IpExt",
        chart: ChartDef {
            id: "ip.mcast",
            title: "IP traffic to groups",
            units: "kilobits/s",
            family: "multicast",
            chart_type: ChartType::Area,
            priority: 4600,
            detail: true,
            dims: &[
                incremental("InMcastOctets").named("received").scaled(8, 1000),
                incremental("OutMcastOctets").named("sent").scaled(8, 1000).negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "broadcast bandwidth",
        group: "IpExt",
        chart: ChartDef {
            id: "ip.bcast",
            title: "IP traffic to everybody",
            units: "kilobits/s",
            family: "broadcast",
            chart_type: ChartType::Area,
            priority: 4500,
            detail: true,
            dims: &[
                incremental("InBcastOctets").named("received").scaled(8, 1000),
                incremental("OutBcastOctets").named("sent").scaled(8, 1000).negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "multicast packets",
        group: "IpExt",
        chart: ChartDef {
            id: "ip.mcastpkts",
            title: "IP packets to groups",
            units: "packets/s",
            family: "multicast",
            priority: 4610,
            detail: true,
            dims: &[
                incremental("InMcastPkts").named("received"),
                incremental("OutMcastPkts").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "broadcast packets",
        group: "IpExt",
        chart: ChartDef {
            id: "ip.bcastpkts",
            title: "IP packets to everybody",
            units: "packets/s",
            family: "broadcast",
            priority: 4510,
            detail: true,
            dims: &[
                incremental("InBcastPkts").named("received"),
                incremental("OutBcastPkts").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ECN packets",
        group: "IpExt",
        chart: ChartDef {
            id: "ip.ecnpkts",
            title: "IP packets by their mark of congestion",
            units: "packets/s",
            family: "ecn",
            priority: 4700,
            detail: true,
            dims: &[
                incremental("InCEPkts").named("CEP"),
                incremental("InNoECTPkts").named("NoECTP").negative(),
                incremental("InECT0Pkts").named("ECTP0"),
                incremental("InECT1Pkts").named("ECTP1"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "TCP memory pressures",
        group: "TcpExt",
        chart: ChartDef {
            id: "ip.tcpmemorypressures",
            title: "Times TCP ran short of memory",
            units: "events/s",
            family: "tcp",
            priority: 4290,
            dims: &[incremental("TCPMemoryPressures").named("pressures")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "TCP connection aborts",
        group: "TcpExt",
        chart: ChartDef {
            id: "ip.tcpconnaborts",
            title: "TCP connections given up, by reason",
            units: "connections/s",
            family: "tcp",
            priority: 4210,
            dims: &[
                incremental("TCPAbortOnData").named("baddata"),
                incremental("TCPAbortOnClose").named("userclosed"),
                incremental("TCPAbortOnMemory").named("nomemory"),
                incremental("TCPAbortOnTimeout").named("timeout"),
                incremental("TCPAbortOnLinger").named("linger"),
                incremental("TCPAbortFailed").named("failed").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "TCP reorders",
        group: "TcpExt",
        chart: ChartDef {
            id: "ip.tcpreorders",
            title: "TCP packets found out of order, by the way of finding out",
            units: "packets/s",
            family: "tcp",
            priority: 4220,
            dims: &[
                incremental("TCPTSReorder").named("timestamp"),
                incremental("TCPSACKReorder").named("sack"),
                incremental("TCPFACKReorder").named("fack"),
                incremental("TCPRenoReorder").named("reno"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "TCP out-of-order queue",
        group: "TcpExt",
        chart: ChartDef {
            id: "ip.tcpofo",
            title: "TCP packets in the queue of those that came too early",
            units: "packets/s",
            family: "tcp",
            priority: 4250,
            deciding: 3,
            dims: &[
                incremental("TCPOFOQueue").named("inqueue"),
                incremental("TCPOFODrop").named("dropped").negative(),
                incremental("TCPOFOMerge").named("merged"),
                incremental("OfoPruned").named("pruned").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "TCP SYN cookies",
        group: "TcpExt",
        chart: ChartDef {
            id: "ip.tcpsyncookies",
            title: "TCP cookies given out and taken back",
            units: "packets/s",
            family: "tcp",
            priority: 4260,
            dims: &[
                incremental("SyncookiesRecv").named("received"),
                incremental("SyncookiesSent").named("sent").negative(),
                incremental("SyncookiesFailed").named("failed").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "TCP SYN queue",
        group: "TcpExt",
        chart: ChartDef {
            id: "ip.tcp_syn_queue",
            title: "TCP connection requests while their queue was full",
            units: "packets/s",
            family: "tcp",
            priority: 4215,
            dims: &[
                incremental("TCPReqQFullDrop").named("drops"),
                incremental("TCPReqQFullDoCookies").named("cookies"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "TCP accept queue",
        group: "TcpExt",
        chart: ChartDef {
            id: "ip.tcp_accept_queue",
            title: "TCP connections that found the accept queue full",
            units: "packets/s",
            family: "tcp",
            priority: 4216,
            dims: &[
                incremental("ListenOverflows").named("overflows"),
                incremental("ListenDrops").named("drops"),
            ],
            ..CHART
        },
        with_next: false,
    },
];

static SNMP: &[KeyedDef] = &[
    KeyedDef {
        option: "ipv4 packets",
        group: "Ip",
        chart: ChartDef {
            id: "ipv4.packets",
            title: "IPv4 packets",
            units: "packets/s",
            family: "packets",
            priority: 5130,
            dims: &[
                incremental("InReceives").named("received"),
                incremental("OutRequests").named("sent").negative(),
                incremental("ForwDatagrams").named("forwarded"),
                incremental("InDelivers").named("delivered"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 fragments sent",
        group: "Ip",
        chart: ChartDef {
            id: "ipv4.fragsout",
            title: "IPv4 packets cut into fragments",
            units: "packets/s",
            family: "fragments",
            priority: 5460,
            detail: true,
            dims: &[
                incremental("FragOKs").named("ok"),
                incremental("FragFails").named("failed").negative(),
                incremental("FragCreates").named("created"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 fragments assembly",
        group: "Ip",
        chart: ChartDef {
            id: "ipv4.fragsin",
            title: "IPv4 packets put together from fragments",
            units: "packets/s",
            family: "fragments",
            priority: 5461,
            detail: true,
            dims: &[
                incremental("ReasmOKs").named("ok"),
                incremental("ReasmFails").named("failed").negative(),
                incremental("ReasmReqds").named("all"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 errors",
        group: "Ip",
        chart: ChartDef {
            id: "ipv4.errors",
            title: "IPv4 packets dropped, by reason",
            units: "packets/s",
            family: "errors",
            priority: 5150,
            detail: true,
            dims: &[
                incremental("InDiscards"),
                incremental("OutDiscards").negative(),
                incremental("InHdrErrors"),
                incremental("OutNoRoutes").negative(),
                incremental("InAddrErrors"),
                incremental("InUnknownProtos"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 ICMP packets",
        group: "Icmp",
        chart: ChartDef {
            id: "ipv4.icmp",
            title: "ICMP packets",
            units: "packets/s",
            family: "icmp",
            priority: 5170,
            dims: &[
                incremental("InMsgs").named("received"),
                incremental("OutMsgs").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: true,
    },
    KeyedDef {
        option: "ipv4 ICMP packets",
        group: "Icmp",
        chart: ChartDef {
            id: "ipv4.icmp_errors",
            title: "ICMP packets that failed",
            units: "packets/s",
            family: "icmp",
            priority: 5171,
            dims: &[
                incremental("InErrors"),
                incremental("OutErrors").negative(),
                incremental("InCsumErrors"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 ICMP messages",
        group: "IcmpMsg",
        chart: ChartDef {
            id: "ipv4.icmpmsg",
            title: "ICMP packets by message",
            units: "packets/s",
            family: "icmp",
            priority: 5172,
            dims: &[
                incremental("InType0").named("InEchoReps"),
                incremental("OutType0").named("OutEchoReps").negative(),
                incremental("InType3").named("InDestUnreachs"),
                incremental("OutType3").named("OutDestUnreachs").negative(),
                incremental("InType5").named("InRedirects"),
                incremental("OutType5").named("OutRedirects").negative(),
                incremental("InType8").named("InEchos"),
                incremental("OutType8").named("OutEchos").negative(),
                incremental("InType9").named("InRouterAdvert"),
                incremental("OutType9").named("OutRouterAdvert").negative(),
                incremental("InType10").named("InRouterSelect"),
                incremental("OutType10").named("OutRouterSelect").negative(),
                incremental("InType11").named("InTimeExcds"),
                incremental("OutType11").named("OutTimeExcds").negative(),
                incremental("InType12").named("InParmProbs"),
                incremental("OutType12").named("OutParmProbs").negative(),
                incremental("InType13").named("InTimestamps"),
                incremental("OutType13").named("OutTimestamps").negative(),
                incremental("InType14").named("InTimestampReps"),
                incremental("OutType14").named("OutTimestampReps").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 TCP connections",
        group: "Tcp",
        chart: ChartDef {
            id: "ipv4.tcpsock",
            title: "TCP connections that are open",
            units: "active connections",
            family: "tcp",
            priority: 5200,
            dims: &[absolute("CurrEstab").named("connections")],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 TCP packets",
        group: "Tcp",
        chart: ChartDef {
            id: "ipv4.tcppackets",
            title: "TCP packets",
            units: "packets/s",
            family: "tcp",
            priority: 5204,
            dims: &[
                incremental("InSegs").named("received"),
                incremental("OutSegs").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 TCP errors",
        group: "Tcp",
        chart: ChartDef {
            id: "ipv4.tcperrors",
            title: "TCP packets that failed or were sent again",
            units: "packets/s",
            family: "tcp",
            priority: 5220,
            detail: true,
            dims: &[
                incremental("InErrs"),
                incremental("InCsumErrors"),
                incremental("RetransSegs").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 TCP opens",
        group: "Tcp",
        chart: ChartDef {
            id: "ipv4.tcpopens",
            title: "TCP connections opened by either side",
            units: "connections/s",
            family: "tcp",
            priority: 5205,
            detail: true,
            dims: &[
                incremental("ActiveOpens").named("active"),
                incremental("PassiveOpens").named("passive"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 TCP handshake issues",
        group: "Tcp",
        chart: ChartDef {
            id: "ipv4.tcphandshake",
            title: "TCP connections that were refused or reset",
            units: "events/s",
            family: "tcp",
            priority: 5230,
            detail: true,
            deciding: 3,
            dims: &[
                incremental("EstabResets"),
                incremental("OutRsts"),
                incremental("AttemptFails"),
                incremental("TCPSynRetrans").named("SynRetrans").key("TcpExt:TCPSynRetrans"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 UDP packets",
        group: "Udp",
        chart: ChartDef {
            id: "ipv4.udppackets",
            title: "UDP packets",
            units: "packets/s",
            family: "udp",
            priority: 5300,
            dims: &[
                incremental("InDatagrams").named("received"),
                incremental("OutDatagrams").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 UDP errors",
        group: "Udp",
        chart: ChartDef {
            id: "ipv4.udperrors",
            title: "UDP packets lost, by reason",
            units: "events/s",
            family: "udp",
            priority: 5310,
            detail: true,
            dims: &[
                incremental("RcvbufErrors"),
                incremental("SndbufErrors").negative(),
                incremental("InErrors"),
                incremental("NoPorts"),
                incremental("InCsumErrors"),
                incremental("IgnoredMulti"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv4 UDPLite packets",
        group: "UdpLite",
        chart: ChartDef {
            id: "ipv4.udplite",
            title: "UDP-Lite packets",
            units: "packets/s",
            family: "udplite",
            priority: 5400,
            dims: &[
                incremental("InDatagrams").named("received"),
                incremental("OutDatagrams").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: true,
    },
    KeyedDef {
        option: "ipv4 UDPLite packets",
        group: "UdpLite",
        chart: ChartDef {
            id: "ipv4.udplite_errors",
            title: "UDP-Lite packets lost, by reason",
            units: "packets/s",
            family: "udplite",
            priority: 5410,
            dims: &[
                incremental("RcvbufErrors"),
                incremental("SndbufErrors").negative(),
                incremental("InErrors"),
                incremental("NoPorts"),
                incremental("InCsumErrors"),
                incremental("IgnoredMulti"),
            ],
            ..CHART
        },
        with_next: false,
    },
];

static SNMP6: &[KeyedDef] = &[
    KeyedDef {
        option: "bandwidth",
        group: "Ip6",
        chart: ChartDef {
            id: "system.ipv6",
            title: "Traffic of IPv6",
            units: "kilobits/s",
            family: "network",
            chart_type: ChartType::Area,
            priority: 502,
            dims: &[
                incremental("InOctets").named("received").scaled(8, 1000),
                incremental("OutOctets").named("sent").scaled(8, 1000).negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 packets",
        group: "Ip6",
        chart: ChartDef {
            id: "ipv6.packets",
            title: "IPv6 packets",
            units: "packets/s",
            family: "packets",
            priority: 6200,
            dims: &[
                incremental("InReceives").named("received"),
                incremental("OutRequests").named("sent").negative(),
                incremental("OutForwDatagrams").named("forwarded").negative(),
                incremental("InDelivers").named("delivers"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 fragments sent",
        group: "Ip6",
        chart: ChartDef {
            id: "ipv6.fragsout",
            title: "IPv6 packets cut into fragments",
            units: "packets/s",
            family: "fragments6",
            priority: 6401,
            detail: true,
            dims: &[
                incremental("FragOKs").named("ok"),
                incremental("FragFails").named("failed").negative(),
                incremental("FragCreates").named("all"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 fragments assembly",
        group: "Ip6",
        chart: ChartDef {
            id: "ipv6.fragsin",
            title: "IPv6 packets put together from fragments",
            units: "packets/s",
            family: "fragments6",
            priority: 6402,
            detail: true,
            dims: &[
                incremental("ReasmOKs").named("ok"),
                incremental("ReasmFails").named("failed").negative(),
                incremental("ReasmTimeout").named("timeout").negative(),
                incremental("ReasmReqds").named("all"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 errors",
        group: "Ip6",
        chart: ChartDef {
            id: "ipv6.errors",
            title: "IPv6 packets dropped, by reason",
            units: "packets/s",
            family: "errors",
            priority: 6300,
            detail: true,
            deciding: 8,
            dims: &[
                incremental("InDiscards"),
                incremental("OutDiscards").negative(),
                incremental("InHdrErrors"),
                incremental("InAddrErrors"),
                incremental("InUnknownProtos"),
                incremental("InTooBigErrors"),
                incremental("InTruncatedPkts"),
                incremental("InNoRoutes"),
                incremental("OutNoRoutes").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 UDP packets",
        group: "Udp6",
        chart: ChartDef {
            id: "ipv6.udppackets",
            title: "UDP packets over IPv6",
            units: "packets/s",
            family: "udp6",
            priority: 6601,
            dims: &[
                incremental("InDatagrams").named("received"),
                incremental("OutDatagrams").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 UDP errors",
        group: "Udp6",
        chart: ChartDef {
            id: "ipv6.udperrors",
            title: "UDP packets over IPv6 lost, by reason",
            units: "events/s",
            family: "udp6",
            priority: 6610,
            detail: true,
            dims: &[
                incremental("RcvbufErrors"),
                incremental("SndbufErrors").negative(),
                incremental("InErrors"),
                incremental("NoPorts"),
                incremental("InCsumErrors"),
                incremental("IgnoredMulti"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 UDPlite packets",
        group: "UdpLite6",
        chart: ChartDef {
            id: "ipv6.udplitepackets",
            title: "UDP-Lite packets over IPv6",
            units: "packets/s",
            family: "udplite6",
            priority: 6701,
            dims: &[
                incremental("InDatagrams").named("received"),
                incremental("OutDatagrams").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ipv6 UDPlite errors",
        group: "UdpLite6",
        chart: ChartDef {
            id: "ipv6.udpliteerrors",
            title: "UDP-Lite packets over IPv6 lost, by reason",
            units: "events/s",
            family: "udplite6",
            priority: 6710,
            detail: true,
            dims: &[
                incremental("RcvbufErrors"),
                incremental("SndbufErrors").negative(),
                incremental("InErrors"),
                incremental("NoPorts"),
                incremental("InCsumErrors"),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "multicast bandwidth",
        group: "Ip6",
        chart: ChartDef {
            id: "ipv6.mcast",
            title: "IPv6 traffic to groups",
            units: "kilobits/s",
            family: "multicast6",
            chart_type: ChartType::Area,
            priority: 6850,
            detail: true,
            dims: &[
                incremental("InMcastOctets").named("received").scaled(8, 1000),
                incremental("OutMcastOctets").named("sent").scaled(8, 1000).negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "broadcast bandwidth",
        group: "Ip6",
        chart: ChartDef {
            id: "ipv6.bcast",
            title: "IPv6 traffic to everybody",
            units: "kilobits/s",
            family: "broadcast6",
            chart_type: ChartType::Area,
            priority: 6840,
            detail: true,
            dims: &[
                incremental("InBcastOctets").named("received").scaled(8, 1000),
                incremental("OutBcastOctets").named("sent").scaled(8, 1000).negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "multicast packets",
        group: "Ip6",
        chart: ChartDef {
            id: "ipv6.mcastpkts",
            title: "IPv6 packets to groups",
            units: "packets/s",
            family: "multicast6",
            priority: 6851,
            detail: true,
            dims: &[
                incremental("InMcastPkts").named("received"),
                incremental("OutMcastPkts").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "icmp",
        group: "Icmp6",
        chart: ChartDef {
            id: "ipv6.icmp",
            title: "ICMPv6 messages",
            units: "messages/s",
            family: "icmp6",
            priority: 6900,
            dims: &[
                incremental("InMsgs").named("received"),
                incremental("OutMsgs").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "icmp redirects",
        group: "Icmp6",
        chart: ChartDef {
            id: "ipv6.icmpredir",
            title: "ICMPv6 redirects",
            units: "redirects/s",
            family: "icmp6",
            priority: 6910,
            dims: &[
                incremental("InRedirects").named("received"),
                incremental("OutRedirects").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "icmp errors",
        group: "Icmp6",
        chart: ChartDef {
            id: "ipv6.icmperrors",
            title: "ICMPv6 messages that failed or report a failure",
            units: "errors/s",
            family: "icmp6",
            priority: 6920,
            dims: &[
                incremental("InErrors"),
                incremental("OutErrors").negative(),
                incremental("InCsumErrors"),
                incremental("InDestUnreachs"),
                incremental("InPktTooBigs"),
                incremental("InTimeExcds"),
                incremental("InParmProblems"),
                incremental("OutDestUnreachs").negative(),
                incremental("OutPktTooBigs").negative(),
                incremental("OutTimeExcds").negative(),
                incremental("OutParmProblems").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "icmp echos",
        group: "Icmp6",
        chart: ChartDef {
            id: "ipv6.icmpechos",
            title: "ICMPv6 echoes",
            units: "messages/s",
            family: "icmp6",
            priority: 6930,
            dims: &[
                incremental("InEchos"),
                incremental("OutEchos").negative(),
                incremental("InEchoReplies"),
                incremental("OutEchoReplies").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "icmp group membership",
        group: "Icmp6",
        chart: ChartDef {
            id: "ipv6.groupmemb",
            title: "ICMPv6 messages about membership of groups",
            units: "messages/s",
            family: "icmp6",
            priority: 6940,
            dims: &[
                incremental("InQueries").key("InGroupMembQueries"),
                incremental("OutQueries").key("OutGroupMembQueries").negative(),
                incremental("InResponses").key("InGroupMembResponses"),
                incremental("OutResponses").key("OutGroupMembResponses").negative(),
                incremental("InReductions").key("InGroupMembReductions"),
                incremental("OutReductions").key("OutGroupMembReductions").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "icmp router",
        group: "Icmp6",
        chart: ChartDef {
            id: "ipv6.icmprouter",
            title: "ICMPv6 messages to and from routers",
            units: "messages/s",
            family: "icmp6",
            priority: 6950,
            dims: &[
                incremental("InSolicits").key("InRouterSolicits"),
                incremental("OutSolicits").key("OutRouterSolicits").negative(),
                incremental("InAdvertisements").key("InRouterAdvertisements"),
                incremental("OutAdvertisements").key("OutRouterAdvertisements").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "icmp neighbor",
        group: "Icmp6",
        chart: ChartDef {
            id: "ipv6.icmpneighbor",
            title: "ICMPv6 messages to and from neighbours",
            units: "messages/s",
            family: "icmp6",
            priority: 6960,
            dims: &[
                incremental("InSolicits").key("InNeighborSolicits"),
                incremental("OutSolicits").key("OutNeighborSolicits").negative(),
                incremental("InAdvertisements").key("InNeighborAdvertisements"),
                incremental("OutAdvertisements").key("OutNeighborAdvertisements").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "icmp mldv2",
        group: "Icmp6",
        chart: ChartDef {
            id: "ipv6.icmpmldv2",
            title: "ICMPv6 reports of listeners",
            units: "reports/s",
            family: "icmp6",
            priority: 6970,
            dims: &[
                incremental("InMLDv2Reports").named("received"),
                incremental("OutMLDv2Reports").named("sent").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "icmp types",
        group: "Icmp6",
        chart: ChartDef {
            id: "ipv6.icmptypes",
            title: "ICMPv6 messages by type",
            units: "messages/s",
            family: "icmp6",
            priority: 6980,
            dims: &[
                incremental("InType1"),
                incremental("InType128"),
                incremental("InType129"),
                incremental("InType136"),
                incremental("OutType1").negative(),
                incremental("OutType128").negative(),
                incremental("OutType129").negative(),
                incremental("OutType133").negative(),
                incremental("OutType135").negative(),
                incremental("OutType143").negative(),
            ],
            ..CHART
        },
        with_next: false,
    },
    KeyedDef {
        option: "ect",
        group: "Ip6",
        chart: ChartDef {
            id: "ipv6.ect",
            title: "IPv6 packets by their mark of congestion",
            units: "packets/s",
            family: "packets",
            priority: 6210,
            dims: &[
                incremental("InNoECTPkts"),
                incremental("InECT1Pkts"),
                incremental("InECT0Pkts"),
                incremental("InCEPkts"),
            ],
            ..CHART
        },
        with_next: false,
    },
];
