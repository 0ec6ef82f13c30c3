//! Which trace a request belongs to, as W3C Trace Context has it: the headers `traceparent` and `tracestate`. Pure.
//!
//! Invariant: what is not exactly as the specification says is not there; a `tracestate` counts with its `traceparent` only.

use http::{HeaderMap, HeaderName, HeaderValue};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Of `tracestate`, in all and in one part.
const MOST_MEMBERS: usize = 32;
const LONGEST_PART: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub(super) [u8; 16]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub(super) [u8; 8]);

/// The span of somebody else that a request comes out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace: TraceId,
    pub span: SpanId,
    pub sampled: bool,
}

impl TraceId {
    /// In 32 hexadecimal digits.
    pub fn digits(self) -> Digits {
        let mut digits = [0; 32];
        write_hex(&mut digits, &self.0);
        Digits(digits)
    }
}

pub struct Digits([u8; 32]);

impl Digits {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits")
    }
}

/// What the one `traceparent` of a request says.
pub fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    parse(only.as_bytes())
}

/// `VERSION-TRACE-SPAN-FLAGS`. A later version may say more behind that.
fn parse(value: &[u8]) -> Option<Parent> {
    let (known, rest) = value.split_at_checked(55)?;
    let [version] = hex(&known[..2])?;
    let ends = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.first().is_none_or(|next| *next == b'-'),
    };
    if !ends || [2, 35, 52].iter().any(|dash| known[*dash] != b'-') {
        return None;
    }
    let (trace, span): ([u8; 16], [u8; 8]) = (hex(&known[3..35])?, hex(&known[36..52])?);
    let [flags] = hex(&known[53..])?;
    let named = trace != [0; 16] && span != [0; 8];
    named.then_some(Parent { trace: TraceId(trace), span: SpanId(span), sampled: flags & 1 == 1 })
}

/// What goes out.
pub fn write(parent: Parent) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text[3..35], &parent.trace.0);
    write_hex(&mut text[36..52], &parent.span.0);
    text[54] += u8::from(parent.sampled);
    HeaderValue::from_bytes(&text).expect("digits and dashes")
}

/// Whether all of a request's `tracestate` can go on.
pub fn has_sound_state(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TRACESTATE).iter();
    let mut members = 0;
    let mut is_member = |member: &[u8]| {
        members += 1;
        let mut parts = member.splitn(2, |byte| *byte == b'=');
        let (Some(key), Some(value)) = (parts.next(), parts.next()) else { return member.is_empty() };
        let in_key = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
        let in_value = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
        let fits = |part: &[u8]| (1..=LONGEST_PART).contains(&part.len());
        fits(key) && fits(value) && key.iter().all(in_key) && value.iter().all(in_value)
    };
    let sound = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .all(|member| is_member(member.trim_ascii()));
    sound && members <= MOST_MEMBERS
}

/// Digits of lower case, as the specification wants them.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0x0f)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::try_from(*value).unwrap())).collect()
    }

    #[test]
    fn a_parent_is_read_and_written_alike() {
        let read = parse(SOUND.as_bytes()).unwrap();
        assert!(read.sampled);
        assert_eq!(read.trace.digits().as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(write(read), SOUND);
        let unsampled = SOUND.replace("-01", "-00");
        assert_eq!(write(parse(unsampled.as_bytes()).unwrap()), unsampled);
        let later = SOUND.replacen("00", "cc", 1);
        for later in [later.clone(), format!("{later}-what-comes")] {
            assert_eq!(parse(later.as_bytes()), Some(read), "{later}");
        }
        assert_eq!(parse(SOUND.replace("-01", "-ff").as_bytes()), Some(read), "further flags are not ours");
    }

    #[test]
    fn what_is_not_as_the_specification_says_is_no_parent() {
        let without_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let without_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let upper = SOUND.to_uppercase();
        let (first, second) = (format!("{SOUND}-more"), SOUND.replacen("00", "ff", 1));
        let third = format!("{}x", SOUND.replacen("00", "cc", 1));
        for wrong in ["", "00", &SOUND[..54], &first, &second, &third, &upper, &without_trace, &without_span] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
        for at in [2, 35, 52] {
            let mut wrong = SOUND.as_bytes().to_vec();
            wrong[at] = b'0';
            assert_eq!(parse(&wrong), None);
        }
        assert!(parent(&headers(&TRACEPARENT, &[SOUND])).is_some());
        assert_eq!(parent(&headers(&TRACEPARENT, &[SOUND, SOUND])), None, "twice");
        assert_eq!(parent(&HeaderMap::new()), None);
    }

    #[test]
    fn a_state_goes_on_whole_or_not_at_all() {
        let sound = |values: &[&str]| has_sound_state(&headers(&TRACESTATE, values));
        assert!(sound(&[]) && sound(&[""]) && sound(&["a=1, b@c=x y ,", "d=2"]));
        let many = vec!["a=1"; 33].join(",");
        let long = format!("a={}", "x".repeat(257));
        for wrong in ["a", "A=1", "a=1=2", "=1", "a=", "a=\t1", "\u{e9}=1", &many, &long] {
            assert!(!sound(&[wrong]), "{wrong}");
        }
    }
}
