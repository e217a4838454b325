//! One comparison, as a check's `expect`, `count` or `bytes` writes it: `">= 1000"`, `"= 0"`, `"< 5%"`.

use std::fmt;
use std::str::FromStr;

use super::ByteSize;

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// An operator and the whole number on its right; sizes are read as bytes (`">= 10MiB"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// The operator.
    pub operator: Operator,
    /// The right side.
    pub value: u64,
}

/// What is wrong with a written comparison.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a comparison: write =, !=, <, <=, > or >= and a number or size, as in \">= 1000\"")]
pub struct ComparisonError(String);

impl Comparison {
    /// Whether `observed` satisfies it.
    pub fn holds(&self, observed: u64) -> bool {
        match self.operator {
            Operator::Equal => observed == self.value,
            Operator::NotEqual => observed != self.value,
            Operator::Less => observed < self.value,
            Operator::AtMost => observed <= self.value,
            Operator::Greater => observed > self.value,
            Operator::AtLeast => observed >= self.value,
        }
    }

    /// Whether finding nothing at all would satisfy it: such a comparison asserts little.
    pub fn accepts_zero(&self) -> bool {
        self.holds(0)
    }
}

impl FromStr for Comparison {
    type Err = ComparisonError;
    fn from_str(text: &str) -> Result<Self, ComparisonError> {
        let bad = || ComparisonError(text.to_owned());
        let trimmed = text.trim();
        let (operator, rest) = [
            (">=", Operator::AtLeast),
            ("<=", Operator::AtMost),
            ("!=", Operator::NotEqual),
            ("==", Operator::Equal),
            ("=", Operator::Equal),
            (">", Operator::Greater),
            ("<", Operator::Less),
        ]
        .into_iter()
        .find_map(|(sign, operator)| trimmed.strip_prefix(sign).map(|rest| (operator, rest)))
        .unwrap_or((Operator::Equal, trimmed));
        let number = rest.trim().replace('_', "");
        let size: ByteSize = number.parse().map_err(|_| bad())?;
        Ok(Self { operator, value: size.0 })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.operator {
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::AtMost => "<=",
            Operator::Greater => ">",
            Operator::AtLeast => ">=",
        };
        write!(f, "{sign} {}", self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_hold_and_fail() {
        for (text, yes, no) in
            [(">= 1000", 1000, 999), ("< 5", 4, 5), ("= 0", 0, 1), ("!=3", 2, 3), ("<=2", 2, 3), ("> 1KiB", 1025, 1024), ("7", 7, 8)]
        {
            let comparison: Comparison = text.parse().unwrap();
            assert!(comparison.holds(yes) && !comparison.holds(no), "{text}");
        }
        assert!("about 5".parse::<Comparison>().is_err());
        assert!(">= ".parse::<Comparison>().is_err());
    }
}
