//! The values that were bound to a statement's placeholders, as text that binds them again.

use arrow::util::display::{ArrayFormatter, FormatOptions};
use cairn_proof::answer::Parameter;
use datafusion::common::{ParamValues, ScalarValue};

use super::canonical::type_name;

/// The values in the order of the placeholders.
///
/// # Errors
/// Names the first whose type is not one of plain values, which alone have a text of their own.
pub(super) fn bound(values: &ParamValues) -> Result<Vec<Parameter>, String> {
    let ParamValues::List(values) = values else {
        return Err("its parameters have names, not numbers".to_owned());
    };
    let one = |(at, value): (usize, &ScalarValue)| {
        parameter(value).ok_or_else(|| format!("its parameter ${} is of type {}", at + 1, value.data_type()))
    };
    values.iter().map(|value| &value.value).enumerate().map(one).collect()
}

fn parameter(value: &ScalarValue) -> Option<Parameter> {
    let kind = type_name(&value.data_type()).filter(|kind| !nests(kind))?;
    if value.is_null() {
        return Some(Parameter { kind, text: None });
    }
    let text = match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            text.clone()
        }
        ScalarValue::Binary(Some(bytes))
        | ScalarValue::LargeBinary(Some(bytes))
        | ScalarValue::BinaryView(Some(bytes)) => {
            format!("\\x{}", hex::encode(bytes))
        }
        value => {
            let array = value.to_array().ok()?;
            ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()).ok()?.value(0).try_to_string().ok()?
        }
    };
    Some(Parameter { kind, text: Some(text) })
}

/// Lists, records and maps, whose text is not read back alike everywhere; durations, which Postgres has no like of.
fn nests(kind: &str) -> bool {
    ["list(", "struct(", "map(", "duration("].iter().any(|start| kind.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_have_a_text_and_others_are_named() {
        let values = |values: Vec<ScalarValue>| ParamValues::from(values);
        let texts = bound(&values(vec![
            ScalarValue::Int64(Some(-7)),
            ScalarValue::Utf8(None),
            ScalarValue::from("it's"),
            ScalarValue::Binary(Some(vec![0, 255])),
            ScalarValue::Boolean(Some(true)),
        ]))
        .expect("plain values");
        let pairs: Vec<_> = texts.iter().map(|value| (value.kind.as_str(), value.text.as_deref())).collect();
        assert_eq!(
            pairs,
            [
                ("int64", Some("-7")),
                ("text", None),
                ("text", Some("it's")),
                ("bytes", Some("\\x00ff")),
                ("bool", Some("true"))
            ]
        );
        let list = ScalarValue::List(ScalarValue::new_list_nullable(
            &[ScalarValue::Int64(Some(1))],
            &arrow::datatypes::DataType::Int64,
        ));
        let error = bound(&values(vec![list])).expect_err("a list");
        assert!(error.contains("$1"), "{error}");
    }
}
