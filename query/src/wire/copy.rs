//! The rows of `COPY (query) TO STDOUT`: lines of text, as Postgres writes them, or CSV.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::error::PgWireResult;
use datafusion_postgres::pgwire::messages::copy::CopyData;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::sync::watch;

use super::{encode, errors};
use crate::error::QueryError;
use crate::session::Rows;
use crate::statement::CopyForm;

/// A statement's rows as lines, which end when the client cancels it; and how many columns they have.
pub(super) fn lines(
    rows: Rows,
    form: &CopyForm,
    options: FormatOptions,
    cancelled: watch::Receiver<u64>,
) -> PgWireResult<(i16, BoxStream<'static, PgWireResult<CopyData>>)> {
    let columns = i16::try_from(rows.schema.fields().len()).unwrap_or(i16::MAX);
    let names: Vec<Option<Vec<u8>>> =
        rows.schema.fields().iter().map(|field| Some(field.name().as_bytes().to_vec())).collect();
    let header = form.header.then(|| Ok(CopyData::new(line(&names, form))));
    let mut answer = encode::response(rows, "COPY", &Format::UnifiedText, options, cancelled)?;
    let lines = std::mem::replace(answer.data_rows(), Box::pin(stream::empty()));
    let form = Arc::new(form.clone());
    let lines = lines.map(move |row| {
        let fields = fields(&row?.data).ok_or_else(|| {
            errors::error(QueryError::internal("a row that is to be copied does not have the form of one"))
        })?;
        Ok(CopyData::new(line(&fields, &form)))
    });
    Ok((columns, stream::iter(header).chain(lines).boxed()))
}

/// The fields of a row as it would have gone to the client: each its length, or -1 for a null, and its text.
fn fields(mut row: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let mut found = Vec::new();
    while !row.is_empty() {
        let (length, rest) = row.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length < 0 {
            found.push(None);
            row = rest;
            continue;
        }
        let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        found.push(Some(text.to_vec()));
        row = rest;
    }
    Some(found)
}

fn line(fields: &[Option<Vec<u8>>], form: &CopyForm) -> bytes::Bytes {
    let mut line = BytesMut::new();
    for (place, field) in fields.iter().enumerate() {
        if place > 0 {
            line.put_u8(form.delimiter);
        }
        match field {
            None => line.put_slice(form.null.as_bytes()),
            Some(text) if form.csv => put_csv(&mut line, text, form),
            Some(text) => put_text(&mut line, text, form.delimiter),
        }
    }
    line.put_u8(b'\n');
    line.freeze()
}

/// RFC 4180, and in quotes what would be read as a null.
fn put_csv(line: &mut BytesMut, text: &[u8], form: &CopyForm) {
    let special = |byte: &u8| *byte == form.delimiter || matches!(byte, b'"' | b'\r' | b'\n');
    if text != form.null.as_bytes() && !text.iter().any(special) && text != b"\\." {
        line.put_slice(text);
        return;
    }
    line.put_u8(b'"');
    for byte in text {
        if *byte == b'"' {
            line.put_u8(b'"');
        }
        line.put_u8(*byte);
    }
    line.put_u8(b'"');
}

/// Postgres' own text form: what would end a field or a line is written with a backslash.
fn put_text(line: &mut BytesMut, text: &[u8], delimiter: u8) {
    for byte in text {
        match byte {
            b'\\' => line.put_slice(b"\\\\"),
            b'\n' => line.put_slice(b"\\n"),
            b'\r' => line.put_slice(b"\\r"),
            b'\t' => line.put_slice(b"\\t"),
            byte if *byte == delimiter => line.put_slice(&[b'\\', *byte]),
            byte => line.put_u8(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion_postgres::pgwire::messages::data::DataRow;

    use super::*;

    fn form(csv: bool) -> CopyForm {
        let (delimiter, null) = if csv { (b',', "") } else { (b'\t', "\\N") };
        CopyForm { csv, header: false, delimiter, null: null.to_owned() }
    }

    #[test]
    fn a_line_can_be_told_apart_from_every_other() {
        let fields = [Some(b"a,\"b\"\n".to_vec()), None, Some(vec![]), Some(b"\\N\t".to_vec())];
        assert_eq!(line(&fields, &form(true)).as_ref(), b"\"a,\"\"b\"\"\n\",,\"\",\\N\t\n");
        assert_eq!(line(&fields, &form(false)).as_ref(), b"a,\"b\"\\n\t\\N\t\t\\\\N\\t\n");
    }

    #[test]
    fn a_row_is_read_to_its_end_or_not_at_all() {
        let row = DataRow::new(BytesMut::from(&b"\0\0\0\x02ab\xff\xff\xff\xff"[..]), 2);
        assert_eq!(fields(&row.data), Some(vec![Some(b"ab".to_vec()), None]));
        assert_eq!(fields(b"\0\0\0\x09ab"), None);
        assert_eq!(fields(b"\0\0"), None);
    }
}
