//! What is common to the refusals of settings.

/// The exit code when the settings prevent the start (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// A value for use in a sentence: quoted, escaped so that it is on one line, and cut after 80 characters.
pub(super) fn shown(value: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    let mut text: String = value.chars().take(CHARACTERS_MAX).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_value_stays_on_one_line_and_is_cut() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        let long = shown(&"x".repeat(500));
        assert!(long.chars().count() < 90 && long.contains('…'), "{long}");
    }
}
