//! Finds unknown names that look like known ones. A setting whose name is misspelt silently keeps its default,
//! which nobody notices until it matters.

use strsim::osa_distance;

use super::variables::VARIABLES;

/// The variable that an unknown name was probably meant to be. `None` for known names and for names
/// that belong to other programs.
pub(super) fn meant(name: &str) -> Option<String> {
    if names().any(|(known, meant)| known == name && known == meant) {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let related = names().filter(|(known, _)| same_family(&upper, known));
    let slips = related.filter_map(|(known, meant)| {
        let slips = osa_distance(&upper, &known);
        (slips <= slips_allowed(&known)).then_some((slips, meant))
    });
    let resembled = slips.min().map(|(_, meant)| meant);
    resembled.or_else(|| cut_short(&upper))
}

/// Each variable's name and that name with `_FILE`, each with the name that is meant by it: only secrets have a
/// variable for their file.
fn names() -> impl Iterator<Item = (String, String)> {
    VARIABLES.iter().flat_map(|variable| {
        let name = variable.name.to_owned();
        let of_file = format!("{name}_FILE");
        let meant = if variable.secret { &of_file } else { &name };
        let of_file = (of_file.clone(), meant.clone());
        [(name.clone(), name), of_file]
    })
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

/// The only variable whose name begins with this one, which must go on after the first `_`: `MAX_LEASE` for
/// `MAX_LEASE_SECONDS`.
fn cut_short(name: &str) -> Option<String> {
    let mut longer = VARIABLES.iter().filter(|v| v.name.starts_with(name));
    let only = longer.next().filter(|_| longer.next().is_none())?;
    let past_prefix = name.split_once('_').is_some_and(|(_, rest)| rest.len() > 1);
    past_prefix.then(|| only.name.to_owned())
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
            ("MAX_LEASE", "MAX_LEASE_SECONDS"),
            ("mysql_host", "MYSQL_HOST"),
            ("STROE", "STORE"),
            ("LOCK_WAIT_SECOND", "LOCK_WAIT_SECONDS"),
            ("COMPATIBILTY", "COMPATIBILITY"),
            ("RESOURCE_REED_FILE", "RESOURCE_READ_FILE"),
            ("MYSQL_PASSWORD_FIEL", "MYSQL_PASSWORD_FILE"),
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
        for (name, _) in names().filter(|(name, meant)| name == meant) {
            assert_eq!(meant(&name), None);
        }
    }
}
