//! Reads one JSON object ([RFC 8259](https://www.rfc-editor.org/rfc/rfc8259)) into the columns of its schema.
//!
//! A small reader of its own, because three things must hold that libraries do not promise together: a number's text
//! decides (no detour through a double), a name that is there twice is an error, and the wording never changes.

use super::avro::{checked_date, checked_time, checked_timestamp, parse_uuid};
use super::{Budget, Reason};
use crate::columns::{Column, Data, offset};
use crate::decimal::parse_decimal;
use crate::schema::{Kind, Record, Type, Unit};
use crate::time;

/// How deep a message may nest, its ignored fields included.
const DEPTH_MAX: usize = 64;

/// Reads a message and appends its fields to the columns.
pub(super) fn decode(
    value: &[u8],
    record: &Record,
    columns: &mut [Column],
    budget: &mut Budget,
    scratch: &mut String,
) -> Result<(), Reason> {
    let text = std::str::from_utf8(value)
        .map_err(|error| Reason::new(format!("not UTF-8 after {} bytes", error.valid_up_to())))?;
    let mut input = Reader { text, at: 0, budget, scratch };
    input.white_space();
    if input.peek() != Some(b'{') {
        return Err(Reason::new(format!("{} where a JSON object belongs", input.found())));
    }
    input.record(record, columns, 0)?;
    input.end()
}

/// Reads a default of a schema and appends it to a column.
pub(super) fn append(text: &str, ty: &Type, column: &mut Column) -> Result<(), Reason> {
    let mut budget = Budget::of(text.as_bytes());
    let mut input = Reader { text, at: 0, budget: &mut budget, scratch: &mut String::new() };
    input.white_space();
    input.value(ty, column, 0)?;
    input.end()
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    budget: &'t mut Budget,
    /// Where a text with escapes is put together.
    scratch: &'t mut String,
}

/// A number's text.
struct Number<'t> {
    text: &'t str,
    /// Written without fraction and exponent.
    whole: bool,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Takes the next byte if it is this one, and white space after it.
    fn accept(&mut self, byte: u8) -> bool {
        let accepted = self.peek() == Some(byte);
        if accepted {
            self.at += 1;
            self.white_space();
        }
        accepted
    }

    fn expect(&mut self, byte: u8) -> Result<(), Reason> {
        if self.accept(byte) {
            return Ok(());
        }
        Err(self.syntax(&format!("{:?} belongs", char::from(byte))))
    }

    fn syntax(&self, expected: &str) -> Reason {
        Reason::new(format!("not JSON at byte {}: {} where {expected}", self.at, self.found()))
    }

    /// What stands here, without quoting it: it may be private.
    fn found(&self) -> &'static str {
        match self.peek() {
            None => "the end",
            Some(b'"') => "a string",
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            Some(b'-' | b'0'..=b'9') => "a number",
            Some(_) => "something else",
        }
    }

    fn end(&self) -> Result<(), Reason> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Reason::new(format!("{} after the message's end at byte {}", self.found(), self.at))),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, Reason> {
        if depth >= DEPTH_MAX {
            return Err(Reason::new(format!("nests more than {DEPTH_MAX} levels")));
        }
        Ok(depth + 1)
    }

    /// Reads an object into the columns of a record; afterwards each of them has one row more.
    fn record(&mut self, record: &Record, columns: &mut [Column], depth: usize) -> Result<(), Reason> {
        let inner = self.deeper(depth)?;
        let row = columns.first().map_or(0, Column::len);
        // Producers keep to one order, so the next field is a good guess.
        let mut guess = 0;
        self.expect(b'{')?;
        let mut more = self.peek() != Some(b'}');
        while more {
            let position = self.field_position(record, guess)?;
            self.expect(b':')?;
            match position {
                Some(position) => {
                    let (field, column) = (&record.fields[position], &mut columns[position]);
                    if column.len() != row {
                        return Err(Reason::field("it is there twice").within(&field.name));
                    }
                    self.field(&field.ty, column, depth == 0, inner).map_err(|reason| reason.within(&field.name))?;
                    guess = position + 1;
                }
                None => self.skip(inner)?,
            }
            self.white_space();
            more = self.accept(b',');
            if more && self.peek() != Some(b'"') {
                return Err(self.syntax("a name belongs"));
            }
        }
        self.expect(b'}')?;
        for (field, column) in record.fields.iter().zip(columns) {
            if column.len() == row {
                if depth > 0 && !field.ty.null.allowed() {
                    return Err(Reason::field("it is missing").within(&field.name));
                }
                column.push_null();
            }
        }
        Ok(())
    }

    fn field_position(&mut self, record: &Record, guess: usize) -> Result<Option<usize>, Reason> {
        let name = self.string()?;
        let guessed = record.fields.get(guess).is_some_and(|field| field.name == name);
        let position = if guessed { Some(guess) } else { record.position(name) };
        self.white_space();
        Ok(position)
    }

    /// A field's value. A field of the table itself may always be null.
    fn field(&mut self, ty: &Type, column: &mut Column, top: bool, depth: usize) -> Result<(), Reason> {
        if top && self.peek() == Some(b'n') {
            self.literal("null")?;
            column.push_null();
            return Ok(());
        }
        self.value(ty, column, depth)
    }

    fn value(&mut self, ty: &Type, column: &mut Column, depth: usize) -> Result<(), Reason> {
        if self.peek() == Some(b'n') {
            self.literal("null")?;
            if !ty.null.allowed() {
                return Err(Reason::field(format!("null where {} belongs", ty.kind.describe())));
            }
            column.push_null();
            return Ok(());
        }
        match (&ty.kind, &mut column.data) {
            (Kind::Array(item), Data::List { offsets, items }) => {
                self.array(item, items, depth)?;
                offsets.push(offset(items.len())?);
            }
            (Kind::Map(item), Data::Map { offsets, keys, items }) => {
                self.map(item, keys, items, depth)?;
                offsets.push(offset(items.len())?);
            }
            (Kind::Record(record), Data::Struct(columns)) => {
                if self.peek() != Some(b'{') {
                    return Err(self.wrong(&ty.kind));
                }
                self.record(record, columns, depth)?;
            }
            (kind, data) => self.plain(kind, data)?,
        }
        column.seal_value();
        Ok(())
    }

    fn array(&mut self, item: &Type, items: &mut Column, depth: usize) -> Result<(), Reason> {
        let inner = self.deeper(depth)?;
        if !self.accept(b'[') {
            return Err(Reason::field(format!("{} where an array belongs", self.found())));
        }
        if self.accept(b']') {
            return Ok(());
        }
        let width = item.kind.leaves();
        loop {
            self.budget.take(width)?;
            self.value(item, items, inner)?;
            self.white_space();
            if !self.accept(b',') {
                return self.expect(b']');
            }
        }
    }

    fn map(&mut self, item: &Type, keys: &mut Column, items: &mut Column, depth: usize) -> Result<(), Reason> {
        let inner = self.deeper(depth)?;
        if !self.accept(b'{') {
            return Err(Reason::field(format!("{} where an object belongs", self.found())));
        }
        if self.accept(b'}') {
            return Ok(());
        }
        let start = keys.len();
        let width = 1 + item.kind.leaves();
        loop {
            self.budget.take(width)?;
            let key = self.string()?;
            keys.data.push_bytes(key.as_bytes())?;
            keys.seal_value();
            self.white_space();
            self.expect(b':')?;
            self.value(item, items, inner)?;
            self.white_space();
            if !self.accept(b',') {
                self.expect(b'}')?;
                return keys.check_unique_from(start);
            }
        }
    }

    fn wrong(&self, kind: &Kind) -> Reason {
        Reason::field(format!("{} where {} belongs", self.found(), kind.describe()))
    }

    /// A value that is neither null nor nested.
    fn plain(&mut self, kind: &Kind, data: &mut Data) -> Result<(), Reason> {
        match (kind, self.peek()) {
            (Kind::Boolean, Some(b't' | b'f')) => {
                let value = self.peek() == Some(b't');
                self.literal(if value { "true" } else { "false" })?;
                if let Data::Boolean(values) = data {
                    values.append(value);
                }
                Ok(())
            }
            (_, Some(b'"')) => self.text_value(kind, data),
            (_, Some(b'-' | b'0'..=b'9')) => self.number_value(kind, data),
            (_, Some(b'{' | b'[' | b't' | b'f')) => Err(self.wrong(kind)),
            _ => Err(self.syntax("a value belongs")),
        }
    }

    fn text_value(&mut self, kind: &Kind, data: &mut Data) -> Result<(), Reason> {
        let text = self.string()?;
        match kind {
            Kind::String => data.push_bytes(text.as_bytes()),
            Kind::Bytes | Kind::Fixed(_) => {
                let bytes = latin1(text)?;
                match kind {
                    Kind::Fixed(size) if bytes.len() != *size => {
                        Err(Reason::field(format!("{} bytes, the schema says {size}", bytes.len())))
                    }
                    _ => data.push_bytes(&bytes),
                }
            }
            Kind::Enum(inner) => {
                let position = inner.symbols.iter().position(|symbol| symbol == text);
                match position.and_then(|position| i32::try_from(position).ok()) {
                    Some(position) => {
                        data.push_i32(position);
                        Ok(())
                    }
                    None => Err(Reason::field(format!("a text that is not {}", kind.describe()))),
                }
            }
            Kind::Uuid => data.push_bytes(&parse_uuid(text)?),
            Kind::Decimal { precision, scale, .. } => {
                data.push_i128(parse_decimal(text, *precision, *scale).map_err(Reason::field)?);
                Ok(())
            }
            Kind::Date => {
                data.push_i32(time::parse_date(text).map_err(Reason::field)?);
                Ok(())
            }
            Kind::Time(unit) => {
                let value = time::parse_time(text, *unit).map_err(Reason::field)?;
                push_time(value, *unit, data)
            }
            Kind::Timestamp { unit, utc } => {
                data.push_i64(time::parse_timestamp(text, *unit, *utc).map_err(Reason::field)?);
                Ok(())
            }
            _ => Err(Reason::field(format!("a string where {} belongs", kind.describe()))),
        }
    }

    fn number_value(&mut self, kind: &Kind, data: &mut Data) -> Result<(), Reason> {
        let number = self.number()?;
        match kind {
            Kind::Int => data.push_i32(number.whole()?),
            Kind::Long => data.push_i64(number.whole()?),
            Kind::Float => {
                let value: f32 = number.text.parse().map_err(|_| Reason::field("not a number"))?;
                data.push_f32(finite(value.is_finite(), value)?);
            }
            Kind::Double => {
                let value: f64 = number.text.parse().map_err(|_| Reason::field("not a number"))?;
                data.push_f64(finite(value.is_finite(), value)?);
            }
            Kind::Decimal { precision, scale, .. } => {
                data.push_i128(parse_decimal(number.text, *precision, *scale).map_err(Reason::field)?);
            }
            Kind::Date => data.push_i32(checked_date(number.whole()?)?),
            Kind::Time(unit) => return push_time(checked_time(number.whole()?, *unit)?, *unit, data),
            Kind::Timestamp { unit, .. } => data.push_i64(checked_timestamp(number.whole()?, *unit)?),
            _ => return Err(Reason::field(format!("a number where {} belongs", kind.describe()))),
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), Reason> {
        match self.text[self.at..].starts_with(word) {
            true => {
                self.at += word.len();
                Ok(())
            }
            false => Err(self.syntax(&format!("{word} belongs"))),
        }
    }

    fn number(&mut self) -> Result<Number<'t>, Reason> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        match self.digits() {
            0 => return Err(self.syntax("a digit belongs")),
            2.. if zero => return Err(Reason::new(format!("not JSON at byte {start}: a number with a leading zero"))),
            _ => {}
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.syntax("a digit belongs"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            whole = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.syntax("a digit belongs"));
            }
        }
        Ok(Number { text: &self.text[start..self.at], whole })
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    /// Reads a string: a slice of the message, or put together in the scratch text if it has escapes.
    fn string(&mut self) -> Result<&str, Reason> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("a string belongs"));
        }
        self.at += 1;
        let start = self.at;
        self.plain_text()?;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(&self.text[start..self.at - 1]);
        }
        self.scratch.clear();
        self.scratch.push_str(&self.text[start..self.at]);
        loop {
            self.at += 1;
            match self.text.as_bytes()[self.at - 1] {
                b'"' => return Ok(self.scratch),
                _ => self.escape()?,
            }
            let start = self.at;
            self.plain_text()?;
            self.scratch.push_str(&self.text[start..self.at]);
        }
    }

    /// Goes to the next quote or backslash.
    fn plain_text(&mut self) -> Result<(), Reason> {
        let rest = &self.text.as_bytes()[self.at..];
        let stop = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20);
        self.at += stop.unwrap_or(rest.len());
        match self.peek() {
            Some(b'"' | b'\\') => Ok(()),
            None => Err(self.syntax("the string's end belongs")),
            Some(_) => Err(Reason::new(format!("not JSON at byte {}: a control character in a string", self.at))),
        }
    }

    fn escape(&mut self) -> Result<(), Reason> {
        let kind = self.peek();
        self.at += 1;
        let plain = match kind {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => self.unicode_escape()?,
            _ => {
                self.at -= 1;
                return Err(Reason::new(format!("not JSON at byte {}: an escape that JSON does not have", self.at)));
            }
        };
        self.scratch.push(plain);
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<char, Reason> {
        let at = self.at;
        let alone = || Reason::new(format!("not JSON at byte {at}: half of a surrogate pair"));
        let first = self.four_digits()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !self.text[self.at..].starts_with("\\u") {
                    return Err(alone());
                }
                self.at += 2;
                let second = self.four_digits()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(alone());
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        char::from_u32(code).ok_or_else(alone)
    }

    fn four_digits(&mut self) -> Result<u32, Reason> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let value = digits.iter().try_fold(0, |value, &digit| Some(value * 16 + char::from(digit).to_digit(16)?));
        match value.filter(|_| digits.len() == 4) {
            Some(value) => {
                self.at += 4;
                Ok(value)
            }
            None => Err(Reason::new(format!("not JSON at byte {}: \\u without four digits", self.at))),
        }
    }

    /// Reads past the value of a field that the schema does not have; it must still be JSON.
    fn skip(&mut self, depth: usize) -> Result<(), Reason> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'[') => {
                let inner = self.deeper(depth)?;
                self.accept(b'[');
                let mut more = self.peek() != Some(b']');
                while more {
                    self.skip(inner)?;
                    self.white_space();
                    more = self.accept(b',');
                }
                self.expect(b']')
            }
            Some(b'{') => {
                let inner = self.deeper(depth)?;
                self.accept(b'{');
                let mut more = self.peek() != Some(b'}');
                while more {
                    self.string()?;
                    self.white_space();
                    self.expect(b':')?;
                    self.skip(inner)?;
                    self.white_space();
                    more = self.accept(b',');
                }
                self.expect(b'}')
            }
            _ => Err(self.syntax("a value belongs")),
        }
    }
}

impl Number<'_> {
    fn whole<T: std::str::FromStr>(&self) -> Result<T, Reason> {
        if !self.whole {
            return Err(Reason::field("a number with a fraction or an exponent where a whole number belongs"));
        }
        self.text.parse().map_err(|_| Reason::field("a number that is out of the type's range"))
    }
}

fn finite<T>(is: bool, value: T) -> Result<T, Reason> {
    if is { Ok(value) } else { Err(Reason::field("a number that is out of the type's range")) }
}

fn push_time(value: i64, unit: Unit, data: &mut Data) -> Result<(), Reason> {
    match unit {
        Unit::Millis => {
            data.push_i32(i32::try_from(value).map_err(|_| Reason::field("a time of day outside the day"))?)
        }
        _ => data.push_i64(value),
    }
    Ok(())
}

/// The bytes of a text of one character a byte.
fn latin1(text: &str) -> Result<Vec<u8>, Reason> {
    text.chars()
        .map(|character| u8::try_from(u32::from(character)))
        .collect::<Result<_, _>>()
        .map_err(|_| Reason::field("a character above U+00FF where bytes belong"))
}
