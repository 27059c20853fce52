use domain::RunnerError;

/// Deepest nesting accepted (promise H6).
const MAX_DEPTH: u32 = 128;

/// Walks over JSON without keeping anything of it.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What may come next inside a container.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    CommaOrEnd,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, RunnerError> {
        let scanner = Self { bytes, at: 0 };
        if bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(scanner.error("unexpected byte order mark"));
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(scanner),
            Err(e) => Err(Self {
                bytes,
                at: e.valid_up_to(),
            }
            .error("invalid UTF-8")),
        }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Skips white space.
    pub(super) fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Takes one byte if it is this one.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, byte: u8, what: &str) -> Result<(), RunnerError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.unexpected(what))
        }
    }

    /// Only white space may follow.
    pub(super) fn end(&mut self) -> Result<(), RunnerError> {
        self.space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.error("unexpected data after the JSON object"))
        }
    }

    /// Skips a string; returns the raw text between its quotes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], RunnerError> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(stop) = memchr::memchr2(b'"', b'\\', rest) else {
                self.at = self.bytes.len();
                return Err(self.error("unterminated string"));
            };
            // A plain loop without an early exit is vectorised.
            if rest[..stop].iter().fold(u8::MAX, |least, byte| least.min(*byte)) < 0x20 {
                self.at += rest.iter().position(|byte| *byte < 0x20).unwrap_or(0);
                return Err(self.error("control character in a string"));
            }
            self.at += stop + 1;
            if rest[stop] == b'"' {
                return Ok(&self.bytes[start..self.at - 1]);
            }
            self.escape()?;
        }
    }

    /// Skips what follows a backslash.
    fn escape(&mut self) -> Result<(), RunnerError> {
        let digits = match self.bytes.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 0,
            Some(b'u') => 4,
            _ => return Err(self.error("invalid escape in a string")),
        };
        self.at += 1;
        let hex = self.bytes.get(self.at..self.at + digits);
        if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
            return Err(self.error("invalid \\u escape in a string"));
        }
        self.at += digits;
        Ok(())
    }

    /// Skips any value at depth 1.
    pub(super) fn value(&mut self) -> Result<(), RunnerError> {
        match self.bytes.get(self.at) {
            Some(b'{' | b'[') => self.container(),
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Result<(), RunnerError> {
        match self.bytes.get(self.at) {
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), RunnerError> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), RunnerError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), RunnerError> {
        let start = self.at;
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(self.unexpected("a digit"))
        }
    }

    /// Skips an object or array. One bit per level tells which of the two it is, so nothing is allocated and hostile
    /// nesting cannot exhaust the stack.
    fn container(&mut self) -> Result<(), RunnerError> {
        let mut objects = 0u128;
        let mut depth = 0u32;
        let mut next = Next::Value;
        loop {
            self.space();
            let byte = self.bytes.get(self.at).copied();
            let in_object = objects & 1 != 0;
            match (next, byte) {
                (Next::Value | Next::ValueOrEnd, Some(open @ (b'{' | b'['))) => {
                    depth += 1;
                    // The enclosing top-level object is one level too.
                    if depth >= MAX_DEPTH {
                        return Err(self.error("nesting is deeper than 128 levels"));
                    }
                    self.at += 1;
                    objects = objects << 1 | u128::from(open == b'{');
                    next = if open == b'{' { Next::KeyOrEnd } else { Next::ValueOrEnd };
                }
                (Next::ValueOrEnd, Some(b']')) | (Next::KeyOrEnd, Some(b'}')) => {
                    if self.close(&mut objects, &mut depth) {
                        return Ok(());
                    }
                    next = Next::CommaOrEnd;
                }
                (Next::CommaOrEnd, Some(end @ (b']' | b'}'))) if (end == b'}') == in_object => {
                    if self.close(&mut objects, &mut depth) {
                        return Ok(());
                    }
                }
                (Next::CommaOrEnd, Some(b',')) => {
                    self.at += 1;
                    next = if in_object { Next::Key } else { Next::Value };
                }
                (Next::CommaOrEnd, _) => return Err(self.unexpected("',' or the end of the list")),
                (Next::Value | Next::ValueOrEnd, _) => {
                    self.scalar()?;
                    next = Next::CommaOrEnd;
                }
                (Next::Key | Next::KeyOrEnd, _) => {
                    self.string()?;
                    self.space();
                    self.expect(b':', "':'")?;
                    next = Next::Value;
                }
            }
        }
    }

    /// Leaves one level; true when it was the outermost.
    fn close(&mut self, objects: &mut u128, depth: &mut u32) -> bool {
        self.at += 1;
        *objects >>= 1;
        *depth -= 1;
        *depth == 0
    }

    fn unexpected(&self, wanted: &str) -> RunnerError {
        match self.bytes.get(self.at) {
            None => self.error(&format!("unexpected end, {wanted} expected")),
            Some(byte) => self.error(&format!("unexpected {:?}, {wanted} expected", char::from(*byte))),
        }
    }

    fn error(&self, what: &str) -> RunnerError {
        let before = &self.bytes[..self.at.min(self.bytes.len())];
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1) + 1;
        RunnerError::invalid(format!(
            "Invalid JSON in the request body at line {line}, column {column}: {what}."
        ))
        .code("invalid_json")
    }
}
