//! Questions for names: read as far as needed to tell what was asked, and refused.

/// The name in a question, and the answer that refuses it. `None` for what is no question.
pub(super) fn refuse(question: &[u8]) -> Option<(String, Vec<u8>)> {
    const IS_ANSWER: u8 = 0x80;
    const KEPT_FLAGS: u8 = 0x79; // operation and "recursion desired", as asked
    const REFUSED: u8 = 5;
    let header = question.get(..12)?;
    if header[2] & IS_ANSWER != 0 || u16::from_be_bytes([header[4], header[5]]) == 0 {
        return None;
    }
    let (name, end) = name_of(question)?;
    // Without its own name and type in the answer a resolver goes on waiting for another one.
    let asked = question.get(12..end + 4)?;
    let mut answer = vec![header[0], header[1], IS_ANSWER | (header[2] & KEPT_FLAGS), REFUSED, 0, 1, 0, 0, 0, 0, 0, 0];
    answer.extend_from_slice(asked);
    Some((name, answer))
}

/// The first name of a message, and where it ends.
fn name_of(message: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        match *message.get(at)? {
            0 => return Some((shown(&labels), at + 1)),
            // No pointer can stand in the first name of a message.
            length @ 1..64 => {
                labels.push(message.get(at + 1..at + 1 + usize::from(length))?);
                at += 1 + usize::from(length);
                if at > 12 + 254 {
                    return None;
                }
            }
            64.. => return None,
        }
    }
}

/// What of a name is told. A name is chosen by what runs inside, and may carry data out in its labels: one of the usual
/// shape is told in full, of any other only the end, which says to whom it went.
fn shown(labels: &[&[u8]]) -> String {
    const USUAL_LABELS: usize = 5;
    const USUAL_LENGTH: usize = 24;
    const END: usize = 2;
    let usual = |label: &&[u8]| label.len() <= USUAL_LENGTH && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let word = |label: &&[u8]| if usual(label) { String::from_utf8_lossy(label).to_ascii_lowercase() } else { "*".to_owned() };
    if labels.is_empty() {
        return ".".to_owned();
    }
    let told = if labels.len() <= USUAL_LABELS && labels.iter().all(usual) { labels } else { &labels[labels.len().saturating_sub(END)..] };
    let mut name = told.iter().map(word).collect::<Vec<_>>().join(".");
    if told.len() < labels.len() {
        name.insert_str(0, "*.");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(labels: &[&str]) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    }

    #[test]
    fn a_question_is_refused_under_its_own_number_and_name() {
        let asked = question(&["SMTP", "clinic", "example"]);
        let (name, answer) = refuse(&asked).unwrap();
        assert_eq!(name, "smtp.clinic.example");
        assert_eq!(answer[..4], [0xab, 0xcd, 0x81, 5]);
        assert_eq!(answer[12..], asked[12..]);
    }

    #[test]
    fn data_in_the_shape_of_a_name_is_not_told() {
        let long = "x".repeat(40);
        for labels in [&["Jane-Doe", "1", "2", "3", "evil", "example"][..], &[&long, "evil", "example"], &["Jane Doe", "evil", "example"]] {
            assert_eq!(refuse(&question(labels)).unwrap().0, "*.evil.example");
        }
        assert_eq!(refuse(&question(&[&long])).unwrap().0, "*");
        assert_eq!(refuse(&question(&[])).unwrap().0, ".");
    }

    #[test]
    fn what_is_no_question_is_not_answered() {
        let good = question(&["a", "example"]);
        let mut answer = good.clone();
        answer[2] |= 0x80;
        let mut empty = good.clone();
        empty[5] = 0;
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        for bad in [&answer[..], &empty, &pointer, &[], &[0; 12], &question(&["x"; 200])] {
            assert_eq!(refuse(bad), None);
        }
        for length in 0..good.len() {
            assert_eq!(refuse(&good[..length]), None);
        }
    }
}
