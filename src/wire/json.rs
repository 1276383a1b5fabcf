//! A small JSON reader for what peers send: streaming paths and answers about a parent.
//!
//! Builds a tree of owned values. Depth and size are bounded; numbers are doubles, which is exact for every time and
//! count that peers send. Never panics on input.

/// Deeper texts are refused.
const DEPTH_MAX: u32 = 16;
/// Texts with more values are refused.
const VALUES_MAX: u32 = 100_000;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    Array(Vec<Value>),
    /// In order; of repeated names the first counts.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// Reads one value with nothing but white space around it.
    pub fn parse(text: &[u8]) -> Option<Value> {
        let text = std::str::from_utf8(text).ok()?;
        let mut reader = Reader { bytes: text.as_bytes(), text, at: 0, values: 0 };
        let value = reader.value(0)?;
        reader.blanks();
        (reader.at == text.len()).then_some(value)
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        let Value::Object(members) = self else { return None };
        members.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub fn string(&self) -> Option<&str> {
        if let Value::String(text) = self { Some(text) } else { None }
    }

    pub fn array(&self) -> Option<&[Value]> {
        if let Value::Array(values) = self { Some(values) } else { None }
    }

    pub fn object(&self) -> Option<&[(String, Value)]> {
        if let Value::Object(members) = self { Some(members) } else { None }
    }

    /// A whole number.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Value::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => Some(*n as i64),
            _ => None,
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    values: u32,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.blanks();
        (self.bytes.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())?;
        Some(value)
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return None;
        }
        self.blanks();
        match self.bytes.get(self.at)? {
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'"' => self.string().map(Value::String),
            b'[' => {
                self.at += 1;
                let mut values = Vec::new();
                if self.eat(b']').is_some() {
                    return Some(Value::Array(values));
                }
                loop {
                    values.push(self.value(depth + 1)?);
                    if self.eat(b',').is_none() {
                        self.eat(b']')?;
                        return Some(Value::Array(values));
                    }
                }
            }
            b'{' => {
                self.at += 1;
                let mut members = Vec::new();
                if self.eat(b'}').is_some() {
                    return Some(Value::Object(members));
                }
                loop {
                    self.blanks();
                    let name = self.string()?;
                    self.eat(b':')?;
                    members.push((name, self.value(depth + 1)?));
                    if self.eat(b',').is_none() {
                        self.eat(b'}')?;
                        return Some(Value::Object(members));
                    }
                }
            }
            _ => {
                let rest = &self.bytes[self.at..];
                let number = |b: &&u8| b.is_ascii_digit() || b"+-.eE".contains(b);
                let length = rest.iter().take_while(number).count();
                let n = self.text[self.at..self.at + length].parse().ok()?;
                self.at += length;
                Some(Value::Number(n))
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        self.eat(b'"')?;
        let mut text = String::new();
        loop {
            let plain = self.bytes[self.at..].iter().take_while(|b| !b"\"\\".contains(b)).count();
            text.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain + 1;
            if self.bytes.get(self.at - 1)? == &b'"' {
                return Some(text);
            }
            let escape = *self.bytes.get(self.at)?;
            self.at += 1;
            text.push(match escape {
                b'"' => '"',
                b'\\' => '\\',
                b'/' => '/',
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.unicode()?,
                _ => return None,
            });
        }
    }

    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if !(0xD800..0xDC00).contains(&first) {
            return Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !self.bytes[self.at..].starts_with(b"\\u") {
            return Some(char::REPLACEMENT_CHARACTER);
        }
        self.at += 2;
        let second = self.hex4()?;
        if !(0xDC00..0xE000).contains(&second) {
            return Some(char::REPLACEMENT_CHARACTER);
        }
        let pair = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        Some(char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        let valid = digits.iter().all(u8::is_ascii_hexdigit);
        let n = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        self.at += 4;
        valid.then_some(n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_of_every_kind() {
        let text =
            br#" {"a":[1,-2.5e3,null,true,false,[],{}],"b":"x\"\u00e9\ud83d\ude00\n","a":2} "#;
        let value = Value::parse(text).unwrap();
        let list = value.get("a").unwrap().array().unwrap();
        assert_eq!(list[0].integer(), Some(1));
        assert_eq!(list[1], Value::Number(-2500.0));
        assert_eq!(list[5..], [Value::Array(vec![]), Value::Object(vec![])]);
        assert_eq!(value.get("b").unwrap().string(), Some("x\"é😀\n"));
    }

    #[test]
    fn half_a_surrogate_pair_is_no_character() {
        for text in
            [r#""\ud83d""#, r#""\ud83dx""#, r#""\ud83d\uffff""#, r#""\ud83d\u0041""#, r#""\ude00""#]
        {
            let value = Value::parse(text.as_bytes()).unwrap();
            assert!(value.string().unwrap().starts_with('\u{fffd}'), "{text}");
        }
    }

    #[test]
    fn broken_texts_are_refused() {
        for text in
            ["", "not json", "{", "[1,]", "{\"a\"}", "\"x", "1 2", "\"\\x\"", "[1", "-", "\"\\u12"]
        {
            assert_eq!(Value::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Value::parse("[".repeat(100_000).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Value::parse(&text);
        }

        #[test]
        fn strings_come_back(text in ".{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            let value = Value::parse(json.as_bytes());
            prop_assert_eq!(value, Some(Value::String(text)));
        }
    }
}
