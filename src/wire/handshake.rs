//! The first words of a stream: the child's request head and the parent's first response (streaming specification,
//! section 2).
//!
//! Feeds `stream::receiver` (reads requests, writes responses) and `stream::sender` (the reverse). Pure: bytes in, values
//! out, and back. Never decides who may stream.

use std::borrow::Cow;

use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::caps::Capabilities;

/// The whole head, at either end.
pub const HEAD_MAX: usize = 8192;

/// A head longer than this is never one we would serve, so nobody needs to collect it.
const METHOD: &[u8] = b"STREAM ";
const HTTP: &[u8] = b" HTTP/";

/// System facts a child tells about itself, in the order 1.37.1 sends them.
pub const FACTS: &[&str] = &[
    "NETDATA_INSTANCE_CLOUD_TYPE",
    "NETDATA_INSTANCE_CLOUD_INSTANCE_TYPE",
    "NETDATA_INSTANCE_CLOUD_INSTANCE_REGION",
    "NETDATA_SYSTEM_OS_NAME",
    "NETDATA_SYSTEM_OS_ID",
    "NETDATA_SYSTEM_OS_ID_LIKE",
    "NETDATA_SYSTEM_OS_VERSION",
    "NETDATA_SYSTEM_OS_VERSION_ID",
    "NETDATA_SYSTEM_OS_DETECTION",
    "NETDATA_HOST_IS_K8S_NODE",
    "NETDATA_SYSTEM_KERNEL_NAME",
    "NETDATA_SYSTEM_KERNEL_VERSION",
    "NETDATA_SYSTEM_ARCHITECTURE",
    "NETDATA_SYSTEM_VIRTUALIZATION",
    "NETDATA_SYSTEM_VIRT_DETECTION",
    "NETDATA_SYSTEM_CONTAINER",
    "NETDATA_SYSTEM_CONTAINER_DETECTION",
    "NETDATA_CONTAINER_OS_NAME",
    "NETDATA_CONTAINER_OS_ID",
    "NETDATA_CONTAINER_OS_ID_LIKE",
    "NETDATA_CONTAINER_OS_VERSION",
    "NETDATA_CONTAINER_OS_VERSION_ID",
    "NETDATA_CONTAINER_OS_DETECTION",
    "NETDATA_SYSTEM_CPU_LOGICAL_CPU_COUNT",
    "NETDATA_SYSTEM_CPU_FREQ",
    "NETDATA_SYSTEM_TOTAL_RAM",
    "NETDATA_SYSTEM_TOTAL_DISK_SIZE",
];

/// Facts without which a 1.37.1 proxy ends with a crash; always sent, never empty.
const FACTS_NEEDED: &[&str] = &[
    "NETDATA_SYSTEM_OS_NAME",
    "NETDATA_SYSTEM_OS_ID",
    "NETDATA_SYSTEM_OS_VERSION",
    "NETDATA_SYSTEM_KERNEL_NAME",
    "NETDATA_SYSTEM_KERNEL_VERSION",
];

/// The parameter of [`Request::past`].
const PAST: &str = "NETDATA_RS_PAST";

/// A request to stream. Empty texts are absent ones, in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub key: String,
    pub hostname: String,
    pub registry_hostname: String,
    /// The guid of the host where the samples are born.
    pub machine_guid: String,
    pub update_every: Option<i64>,
    pub os: String,
    pub timezone: String,
    pub abbrev_timezone: String,
    pub utc_offset: Option<i64>,
    /// Distance of the receiver from the origin.
    pub hops: Option<i64>,
    pub ml_capable: Option<i64>,
    pub ml_enabled: Option<i64>,
    pub mc_version: Option<i64>,
    pub tags: String,
    pub version: Option<i64>,
    /// Only what was stored earlier is to be compared: nothing is collected. Between nodes of ours.
    pub past: bool,
    /// (name, value) of [`FACTS`], in the order of the request.
    pub facts: Vec<(&'static str, String)>,
    pub program_name: String,
    pub program_version: String,
    /// Parameters nobody knows, for the log.
    pub unknown: Vec<(String, String)>,
}

/// Why a head is no request we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("request head exceeds {HEAD_MAX} bytes")]
    TooLong,
    #[error("request head is not a STREAM request")]
    NotAStream,
}

impl Request {
    /// Reads a complete request head (up to and including its empty line, if it has one).
    pub fn parse(head: &[u8]) -> Result<Request, HeadError> {
        if head.len() > HEAD_MAX {
            return Err(HeadError::TooLong);
        }
        let after = head.strip_prefix(METHOD).ok_or(HeadError::NotAStream)?;
        // Values may hold blanks, so only the first ` HTTP/` ends them. (It may overlap the method's own blank.)
        let end = match memmem::find(&head[METHOD.len() - 1..], HTTP) {
            Some(0) => 0,
            Some(at) => at - 1,
            None => memchr::memchr2(b'\r', b'\n', after).unwrap_or(after.len()),
        };
        let agent = user_agent(&after[end..]);
        Ok(Request::of(&after[..end], agent.as_deref()))
    }

    /// Reads the parameters of a head that was taken apart already; `agent` is its `User-Agent`.
    pub fn of(parameters: &[u8], agent: Option<&str>) -> Request {
        let mut request = Request::default();
        for pair in decoded(parameters).split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !value.is_empty() {
                request.parameter(name, value);
            }
        }
        let agent = clean(Cow::Borrowed(agent.unwrap_or("")));
        let (name, version) = agent.split_once('/').unwrap_or((&agent, ""));
        request.program_name = name.to_owned();
        request.program_version = version.to_owned();
        request
    }

    fn parameter(&mut self, name: &str, value: &str) {
        let number = || Some(number(value));
        match name {
            "key" => self.key = value.to_owned(),
            "hostname" => self.hostname = value.to_owned(),
            "registry_hostname" => self.registry_hostname = value.to_owned(),
            "machine_guid" => self.machine_guid = value.to_owned(),
            "update_every" => self.update_every = number(),
            "os" => self.os = value.to_owned(),
            "timezone" => self.timezone = value.to_owned(),
            "abbrev_timezone" => self.abbrev_timezone = value.to_owned(),
            "utc_offset" => self.utc_offset = number(),
            "hops" => self.hops = number(),
            "ml_capable" => self.ml_capable = number(),
            "ml_enabled" => self.ml_enabled = number(),
            "mc_version" => self.mc_version = number(),
            "tags" => self.tags = value.to_owned(),
            "ver" => self.version = number(),
            PAST => self.past = value == "1",
            // Says something only about versions of 1.36 and older, and to them.
            "NETDATA_PROTOCOL_VERSION" => {}
            _ => match fact(name) {
                Some(fact) => {
                    self.facts.retain(|(known, _)| *known != fact);
                    self.facts.push((fact, value.to_owned()));
                }
                None => self.unknown.push((name.to_owned(), value.to_owned())),
            },
        }
    }

    /// The value of one of [`FACTS`].
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Appends the whole head, ready to be sent in one write. What is too long for [`HEAD_MAX`] is sent without its
    /// tags and, if need be, without the facts nobody needs.
    pub fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.put_with(out, self.tags.as_str(), |_| true);
        if out.len() - start > HEAD_MAX {
            out.truncate(start);
            self.put_with(out, "", |fact| FACTS_NEEDED.contains(&fact));
        }
    }

    fn put_with(&self, out: &mut Vec<u8>, tags: &str, sends: impl Fn(&str) -> bool) {
        out.extend_from_slice(METHOD);
        let text = |out: &mut Vec<u8>, name: &str, value: &str| {
            if out.last() != Some(&b' ') {
                out.push(b'&');
            }
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            out.extend(utf8_percent_encode(value, ENCODED).flat_map(str::bytes));
        };
        let number = |out: &mut Vec<u8>, name: &str, value: Option<i64>, default: i64| {
            let mut digits = Vec::new();
            super::numbers::put_signed_decimal(&mut digits, value.unwrap_or(default));
            text(out, name, std::str::from_utf8(&digits).unwrap_or("0"));
        };
        text(out, "key", &self.key);
        text(out, "hostname", &self.hostname);
        text(out, "registry_hostname", &self.registry_hostname);
        text(out, "machine_guid", &self.machine_guid);
        number(out, "update_every", self.update_every, 1);
        text(out, "os", &self.os);
        text(out, "timezone", &self.timezone);
        text(out, "abbrev_timezone", &self.abbrev_timezone);
        number(out, "utc_offset", self.utc_offset, 0);
        number(out, "hops", self.hops, 1);
        number(out, "ml_capable", self.ml_capable, 0);
        number(out, "ml_enabled", self.ml_enabled, 0);
        number(out, "mc_version", self.mc_version, 0);
        text(out, "tags", tags);
        number(out, "ver", self.version, 1);
        if self.past {
            text(out, PAST, "1");
        }
        for name in FACTS {
            let needed = FACTS_NEEDED.contains(name).then_some("unknown");
            let value = self.fact(name).filter(|v| !v.is_empty()).or(needed);
            if let Some(value) = value.filter(|_| sends(name)) {
                text(out, name, value);
            }
        }
        text(out, "NETDATA_PROTOCOL_VERSION", "1.1");
        out.extend_from_slice(b" HTTP/1.1\r\nUser-Agent: ");
        out.extend_from_slice(clean(Cow::Borrowed(&self.program_name)).as_bytes());
        out.push(b'/');
        out.extend_from_slice(clean(Cow::Borrowed(&self.program_version)).as_bytes());
        out.extend_from_slice(b"\r\nAccept: */*\r\n\r\n");
    }
}

fn user_agent(headers: &[u8]) -> Option<String> {
    headers.split(|b| *b == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked("user-agent:".len())?;
        let value = String::from_utf8_lossy(value.trim_ascii());
        name.eq_ignore_ascii_case(b"user-agent:").then(|| value.into_owned())
    })
}

/// What stays as it is in a value: parents split and decode everything else.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The fact of that name; operating system facts have two spellings.
fn fact(name: &str) -> Option<&'static str> {
    if let Some(known) = FACTS.iter().find(|known| **known == name) {
        return Some(known);
    }
    let os = name.strip_prefix("NETDATA_HOST_OS_")?;
    FACTS.iter().find(|known| known.strip_prefix("NETDATA_SYSTEM_OS_") == Some(os)).copied()
}

/// `+` is a blank, `%XX` a byte; decoded as a whole, before it is split, as the original does.
fn decoded(text: &[u8]) -> String {
    let plus: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    clean(percent_decode(&plus).decode_utf8_lossy()).into_owned()
}

/// Control characters would forge lines in logs and in streams of our own.
fn clean(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.replace(char::is_control, " "))
    } else {
        text
    }
}

fn number(text: &str) -> i64 {
    super::numbers::integer(text.trim().as_bytes()).unwrap_or(0)
}

/// The texts with which a parent turns a child away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Localhost,
    AlreadyStreaming,
    NotPermitted,
    Busy,
    InternalError,
    Initializing,
}

impl Refusal {
    const ALL: [Refusal; 6] = [
        Refusal::Localhost,
        Refusal::AlreadyStreaming,
        Refusal::NotPermitted,
        Refusal::Busy,
        Refusal::InternalError,
        Refusal::Initializing,
    ];

    /// The exact bytes on the wire; there is no line end.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Localhost => "Don't hit me baby, you are trying to stream my localhost back",
            Refusal::AlreadyStreaming => "This GUID is already streaming to this server",
            Refusal::NotPermitted => {
                "You are not permitted to access this. Check the logs for more info."
            }
            Refusal::Busy => "The server is too busy now to accept this request. Try later.",
            Refusal::InternalError => "The server encountered an internal error. Try later.",
            Refusal::Initializing => "The server is initializing. Try later.",
        }
    }
}

const PROMPT_VERSION: &str = "Hit me baby, push them over with the version=";
const PROMPT_LABELS: &str = "Hit me baby, push them over and bring the host labels...";
const PROMPT_PLAIN: &str = "Hit me baby, push them over...";

/// The prompt for a child with which `agreed` was agreed: exact bytes, no line end.
pub fn prompt(agreed: Capabilities) -> String {
    if agreed.contains(Capabilities::VCAPS) {
        format!("{PROMPT_VERSION}{}", agreed.bits())
    } else if agreed.contains(Capabilities::VN) {
        format!("{PROMPT_VERSION}{}", agreed.old_version())
    } else if agreed.contains(Capabilities::V2) {
        PROMPT_LABELS.to_owned()
    } else {
        PROMPT_PLAIN.to_owned()
    }
}

/// What a child makes of the first response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Accepted; what was agreed, within what we offered.
    Prompt(Capabilities),
    Refused(Refusal),
    NotUnderstood,
}

/// A prompt with a number longer than this is none: the parent would have said more than its first response.
const PROMPT_DIGITS_MAX: usize = 29;

impl Response {
    /// Reads what one receive brought. The texts have no end mark, so their length is part of them.
    pub fn parse(text: &[u8], offered: Capabilities) -> Response {
        if let Some(after) = text.strip_prefix(PROMPT_VERSION.as_bytes()) {
            let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
            let rest_is_blank = after[digits..].iter().all(u8::is_ascii_whitespace);
            let number = super::numbers::integer(&after[..digits]);
            return match number {
                Some(n) if n > 0 && rest_is_blank && after.len() <= PROMPT_DIGITS_MAX => {
                    Response::Prompt(offered.agree(Some(n)))
                }
                _ => Response::NotUnderstood,
            };
        }
        if text == PROMPT_LABELS.as_bytes() {
            return Response::Prompt(offered.agree(Some(2)));
        }
        if text == PROMPT_PLAIN.as_bytes() {
            return Response::Prompt(offered.agree(Some(1)));
        }
        let refusal = Refusal::ALL.into_iter().find(|r| r.text().as_bytes() == text);
        refusal.map_or(Response::NotUnderstood, Response::Refused)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: Capabilities = Capabilities::from_bits_retain(58_523_640);

    fn parse(query: &str) -> Request {
        Request::parse(
            format!("STREAM {query} HTTP/1.1\r\nUser-Agent: netdata/v1.37.1\r\n\r\n").as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn values_hold_blanks_and_slashes() {
        let r = parse("key=k&NETDATA_SYSTEM_OS_NAME=Debian GNU/Linux&hostname=h");
        assert_eq!(r.fact("NETDATA_SYSTEM_OS_NAME"), Some("Debian GNU/Linux"));
        assert_eq!((r.key.as_str(), r.hostname.as_str()), ("k", "h"));
        assert_eq!((r.program_name.as_str(), r.program_version.as_str()), ("netdata", "v1.37.1"));
    }

    #[test]
    fn the_whole_string_is_decoded_before_it_is_split() {
        assert_eq!(parse("hostname=a%2Db%5fc").hostname, "a-b_c");
        assert_eq!(parse("os=x+y%20z").os, "x y z");
        let split = parse("hostname=a%26tags=b");
        assert_eq!((split.hostname.as_str(), split.tags.as_str()), ("a", "b"));
        assert_eq!(parse("hostname=%zz%").hostname, "%zz%");
    }

    #[test]
    fn empty_is_absent_and_the_last_one_wins() {
        assert_eq!(parse("key=a&key=&key=b").key, "b");
        assert_eq!(parse("key=b&key=").key, "b");
        assert_eq!(parse("ver=").version, None);
    }

    #[test]
    fn both_spellings_of_the_os_facts() {
        let r = parse("NETDATA_HOST_OS_ID=x&colour=green");
        assert_eq!(r.fact("NETDATA_SYSTEM_OS_ID"), Some("x"));
        assert_eq!(r.unknown, [("colour".to_owned(), "green".to_owned())]);
    }

    #[test]
    fn line_ends_cannot_be_smuggled_in() {
        assert_eq!(parse("hostname=a%0d%0ab%00").hostname, "a  b ");
    }

    #[test]
    fn odd_heads() {
        assert_eq!(Request::parse(b"STREAM  HTTP/1.1\r\n\r\n"), Ok(Request::default()));
        assert_eq!(Request::parse(b"STREAM "), Ok(Request::default()));
        assert_eq!(Request::parse(b"STREAM HTTP/1.1\r\n\r\n"), Ok(Request::default()));
        assert_eq!(Request::parse(b"stream key=a HTTP/1.1\r\n\r\n"), Err(HeadError::NotAStream));
        assert_eq!(Request::parse(&[b'S'; 9000]), Err(HeadError::TooLong));
    }

    #[test]
    fn what_is_sent_reads_the_same() {
        let mut sent = Request {
            key: "k&=%".into(),
            hostname: "höst name".into(),
            registry_hostname: "h".into(),
            machine_guid: "g".into(),
            update_every: Some(1),
            os: "linux".into(),
            timezone: "Europe/Athens".into(),
            abbrev_timezone: "EET".into(),
            utc_offset: Some(-3600),
            hops: Some(2),
            ml_capable: Some(0),
            ml_enabled: Some(0),
            mc_version: Some(0),
            tags: String::new(),
            version: Some(64),
            facts: vec![("NETDATA_SYSTEM_CPU_FREQ", "2.445e+09".into())],
            program_name: "netdata".into(),
            program_version: "v1".into(),
            past: true,
            unknown: vec![],
        };
        // Decoding comes before splitting at the receiver, so these three cannot survive in any value.
        sent.key = "k".into();
        let mut head = Vec::new();
        sent.put(&mut head);
        let got = Request::parse(&head).unwrap();
        for name in FACTS_NEEDED {
            assert_eq!(got.fact(name), Some("unknown"));
        }
        assert_eq!(got.fact("NETDATA_SYSTEM_CPU_FREQ"), Some("2.445e+09"));
        assert_eq!(Request { facts: sent.facts.clone(), ..got }, sent);
    }

    #[test]
    fn a_head_that_would_not_fit_goes_without_what_nobody_needs() {
        let request = Request { tags: "t".repeat(9000), ..Request::default() };
        let mut head = Vec::new();
        request.put(&mut head);
        assert!(head.len() < HEAD_MAX);
        assert_eq!(Request::parse(&head).unwrap().tags, "");
    }

    #[track_caller]
    fn check(text: &str, response: Response) {
        assert_eq!(Response::parse(text.as_bytes(), WHOLE), response, "{text:?}");
    }

    #[test]
    fn responses_are_read_by_their_exact_text() {
        for refusal in Refusal::ALL {
            check(refusal.text(), Response::Refused(refusal));
            check(&format!("{}\n", refusal.text()), Response::NotUnderstood);
            check(&refusal.text()[..20], Response::NotUnderstood);
        }
        for number in [15296, 16320, 55_376_832] {
            let agreed = Capabilities::from_bits(number).unwrap();
            check(&prompt(agreed), Response::Prompt(agreed));
            check(&format!("{}\n", prompt(agreed)), Response::Prompt(agreed));
        }
        let version = |n| Response::Prompt(WHOLE.agree(Some(n)));
        check(PROMPT_PLAIN, version(1));
        check(PROMPT_LABELS, version(2));
        check("Hit me baby, push them over with the version=3", version(3));
        for number in ["", "0", "-1", "abc", "15296REPLAY", "000000000000000000000000015296"] {
            check(&format!("{PROMPT_VERSION}{number}"), Response::NotUnderstood);
        }
        check("", Response::NotUnderstood);
        check("HTTP/1.1 200 OK\r\n\r\n", Response::NotUnderstood);
    }

    #[test]
    fn prompts_by_generation() {
        let prompt_of = |n| prompt(WHOLE.agree(Some(n)));
        assert_eq!(prompt_of(1), PROMPT_PLAIN);
        assert_eq!(prompt_of(9), PROMPT_PLAIN);
        assert_eq!(prompt_of(6), PROMPT_PLAIN);
        assert_eq!(prompt_of(2), PROMPT_LABELS);
        assert_eq!(prompt_of(4), format!("{PROMPT_VERSION}4"));
        assert_eq!(prompt_of(72), format!("{PROMPT_VERSION}64"));
    }

    proptest! {
        #[test]
        fn any_head_is_read_without_harm(head in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::parse(&head);
            let _ = Request::parse(&[METHOD, &head].concat());
            let _ = Response::parse(&head, WHOLE);
        }
    }
}
