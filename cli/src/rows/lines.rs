//! Lines of bounded length.

use std::io::{self, BufRead, Read};

/// Longest line or CSV record, bytes. Kafka's own default for a record is 1 MiB.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;

/// What the next line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The line is in the buffer, without its end.
    Whole,
    /// The line was longer than allowed; the rest of it was skipped.
    TooLong,
    /// There are no more lines.
    End,
}

/// Reads one line into `buffer`, never more than [`LINE_BYTES_MAX`] bytes of it.
pub(super) fn read_line(reader: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<Line> {
    buffer.clear();
    let limit = LINE_BYTES_MAX as u64 + 2;
    if reader.by_ref().take(limit).read_until(b'\n', buffer)? == 0 {
        return Ok(Line::End);
    }
    let ended = buffer.last() == Some(&b'\n');
    if ended {
        buffer.pop();
        if buffer.last() == Some(&b'\r') {
            buffer.pop();
        }
    }
    if buffer.len() <= LINE_BYTES_MAX {
        return Ok(Line::Whole);
    }
    buffer.clear();
    if !ended {
        reader.skip_until(b'\n')?;
    }
    Ok(Line::TooLong)
}

/// Lets through so many bytes until the allowance is renewed: bounds a reader that buffers a whole record on its own.
pub(super) struct Allowance<R> {
    inner: R,
    left: usize,
}

impl<R> Allowance<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: 0 }
    }

    /// Allows `bytes` more from here on.
    pub(super) fn renew(&mut self, bytes: usize) {
        self.left = bytes;
    }
}

impl<R: Read> Read for Allowance<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let text = format!("a record is longer than {LINE_BYTES_MAX} bytes: is a closing quote missing?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let most = buffer.len().min(self.left);
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_without_their_ends_and_long_ones_are_skipped() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        let most = vec![b'y'; LINE_BYTES_MAX];
        let text = [b"a\r\n\nb\n", long.as_slice(), b"\nc\n", most.as_slice(), b"\r\n", long.as_slice(), b"z\nlast"];
        let text = text.concat();
        let mut reader = io::BufReader::with_capacity(7, text.as_slice());
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        loop {
            match read_line(&mut reader, &mut buffer).unwrap() {
                Line::Whole if buffer.len() > 10 => seen.push(format!("{} bytes", buffer.len())),
                Line::Whole => seen.push(String::from_utf8(buffer.clone()).unwrap()),
                Line::TooLong => seen.push("too long".to_owned()),
                Line::End => break,
            }
            assert!(buffer.capacity() < 3 * LINE_BYTES_MAX);
        }
        assert_eq!(seen, ["a", "", "b", "too long", "c", "1048576 bytes", "too long", "last"]);
    }

    #[test]
    fn an_allowance_ends() {
        let mut reader = Allowance::new([7_u8; 100].as_slice());
        let mut buffer = [0; 60];
        assert!(reader.read(&mut buffer).is_err());
        reader.renew(70);
        assert_eq!(reader.read(&mut buffer).unwrap(), 60);
        assert_eq!(reader.read(&mut buffer).unwrap(), 10);
        assert!(reader.read(&mut buffer).unwrap_err().to_string().contains("longer than"));
        reader.renew(70);
        assert_eq!(reader.read(&mut buffer).unwrap(), 30);
        assert_eq!(reader.read(&mut buffer).unwrap(), 0);
    }
}
