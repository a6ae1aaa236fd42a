//! Finds unknown names that look like known ones. A setting whose name is misspelt silently keeps its default,
//! which nobody notices until it matters.

use strsim::osa_distance;

use super::variables::{self, VARIABLES, Variable};

/// The variable that an unknown name was probably meant to be. `None` for known names and for names
/// that belong to other programs.
pub(super) fn meant(name: &str) -> Option<String> {
    if known_names().any(|(_, known)| known == name) {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    known_names()
        .map(|(variable, known)| (osa_distance(&upper, &known), variable, known))
        .filter(|(slips, variable, known)| {
            *slips <= slips_allowed(variable.name) && same_family(&upper, known)
        })
        .map(|(slips, _, known)| (slips, known))
        .min()
        .map(|(_, known)| known)
        .or_else(|| cut_short(&upper).map(str::to_owned))
        .or_else(|| of_file(&upper))
}

/// Each variable with its name, and each secret also with the name of the variable that names its file.
fn known_names() -> impl Iterator<Item = (&'static Variable, String)> {
    VARIABLES.iter().flat_map(|variable| {
        let of_file = variable.secret.then(|| format!("{}_FILE", variable.name));
        let names = std::iter::once(variable.name.to_owned()).chain(of_file);
        names.map(move |name| (variable, name))
    })
}

/// What `NAME_FILE` was meant to be, by its `NAME`. Only secrets have it, so for any other variable that is `NAME`.
fn of_file(name: &str) -> Option<String> {
    let stem = name.strip_suffix("_FILE")?;
    let exact = variables::find(stem).map(|variable| variable.name.to_owned());
    let known = exact.or_else(|| meant(stem))?;
    match variables::find(&known) {
        Some(variable) if variable.secret => Some(format!("{known}_FILE")),
        _ => Some(known),
    }
}

/// Whether the first words are the same but for one slip: `SSL_CERT_FILE` is not a misspelt `TLS_CERT_FILE`.
fn same_family(name: &str, known: &str) -> bool {
    let [name, known] = [name, known].map(|text| text.split('_').next().unwrap_or(text));
    osa_distance(name, known) <= 1
}

/// How many slips a misspelt name may have: characters left out, added, replaced or swapped with their neighbour. Fewer
/// for short names, which resemble too many others.
fn slips_allowed(known: &str) -> usize {
    if known.len() < 10 { 1 } else { 2 }
}

/// The only known name that begins with this one, which must go on after the first `_`: `MYSQL_PASS` for
/// `MYSQL_PASSWORD`.
fn cut_short(name: &str) -> Option<&'static str> {
    let past_prefix = name.split_once('_').is_some_and(|(_, rest)| rest.len() > 1);
    let mut longer = VARIABLES.iter().filter(|v| v.name.starts_with(name));
    let candidate = longer.next()?;
    (past_prefix && longer.next().is_none()).then_some(candidate.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_in_a_name_are_noticed() {
        for (written, known) in [
            ("RESOURCE_REED", "RESOURCE_READ"),
            ("RESOURCE_READLOCK", "RESOURCE_READ_LOCK"),
            ("MYSQL_PASS", "MYSQL_PASSWORD"),
            ("mysql_host", "MYSQL_HOST"),
            ("STROE", "STORE"),
            ("LOCK_WAIT_SECOND", "LOCK_WAIT_SECONDS"),
            ("COMPATIBILTY", "COMPATIBILITY"),
            ("RESOURCE_REED_FILE", "RESOURCE_READ_FILE"),
            ("MYSQL_PASSWORD_FIEL", "MYSQL_PASSWORD_FILE"),
            ("MYSQL_PASS_FILE", "MYSQL_PASSWORD_FILE"),
            ("mysql_password_file", "MYSQL_PASSWORD_FILE"),
            ("API_KEYS_FILE", "API_KEY_FILE"),
            ("TSL_CERT_FILE", "TLS_CERT_FILE"),
            // Only secrets have a variable for their file.
            ("MYSQL_HOST_FILE", "MYSQL_HOST"),
            ("MYSQL_DATABSE_FILE", "MYSQL_DATABASE"),
        ] {
            assert_eq!(meant(written).as_deref(), Some(known), "{written}");
        }
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for name in [
            "APP_ENV",
            "PATH",
            "HTTP_PROXY",
            "NO_PROXY",
            "SSL_CERT_FILE",
            "MYSQL_ROOT_PASSWORD",
            "MYSQL_ROOT_PASSWORD_FILE",
            "LOG_FILE",
            "_FILE",
            "MYSQL_PORT_3306_TCP",
            "RUST_BACKTRACE",
            "RUST_LOG_STYLE",
            "DATABASE_URL",
            "MYSQL_",
            "RESOURCE",
            "",
            "MAX",
            "É_É",
        ] {
            assert_eq!(meant(name), None, "{name}");
        }
    }

    #[test]
    fn no_known_name_is_taken_for_another() {
        for (_, name) in known_names() {
            assert_eq!(meant(&name), None);
        }
    }
}
