//! Decimals as text, digit for digit.

/// The unscaled value of `-12.50`, for a column of `precision` digits, `scale` of them after the point.
pub(crate) fn parse_decimal(text: &str, precision: u8, scale: u8) -> Result<i128, &'static str> {
    const NOT_A_DECIMAL: &str = "it is not a decimal such as -12.50";
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if whole.is_empty() || fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(NOT_A_DECIMAL);
    }
    let (kept, dropped) = fraction.split_at(fraction.len().min(usize::from(scale)));
    if dropped.bytes().any(|digit| digit != b'0') {
        return Err("it has more digits after the point than the field");
    }
    let padding = std::iter::repeat_n(b'0', usize::from(scale) - kept.len());
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(kept.bytes()).chain(padding) {
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit - b'0')))
            .filter(|value| value.unsigned_abs() < 10u128.pow(u32::from(precision)))
            .ok_or("it has more digits than the field")?;
    }
    Ok(if negative { -value } else { value })
}

/// `-12.50` of an unscaled value.
pub(crate) fn format_decimal(unscaled: i128, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>1$}", unscaled.unsigned_abs(), usize::from(scale) + 1);
    match digits.split_at(digits.len() - usize::from(scale)) {
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_are_kept_or_refused() {
        assert_eq!(parse_decimal("-12.5", 10, 2), Ok(-1250));
        assert_eq!(parse_decimal("12", 10, 2), Ok(1200));
        assert_eq!(parse_decimal("0.500", 3, 2), Ok(50));
        assert_eq!(parse_decimal("7", 1, 0), Ok(7));
        for text in [
            "",
            "-",
            ".5",
            "5.",
            "1e3",
            "+1",
            "1,5",
            "١",
            "1.005",
            "100000000",
            "99999999999999999999999999999999999999999",
        ] {
            assert!(parse_decimal(text, 10, 2).is_err(), "{text}");
        }
        assert_eq!(parse_decimal("99999999999999999999999999999999999999", 38, 0), Ok(10i128.pow(38) - 1));
    }

    proptest! {
        #[test]
        fn text_and_back(unscaled in -(10i128.pow(38) - 1)..10i128.pow(38), scale in 0u8..=38) {
            prop_assert_eq!(parse_decimal(&format_decimal(unscaled, scale), 38, scale), Ok(unscaled));
        }
    }
}
