//! A route is paused, or goes on, by one line of the table's text; all else stays as it was written.

use super::{Origin, Route, RouteTable};

/// Why a table cannot be changed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPaused {
    /// It is so already.
    Already,
    /// It is not written as `[[route]]`, or so that one line would not do.
    ByHand,
}

/// The text of a table with a route paused, or not any more. `table` is what was read of `text`.
///
/// # Errors
///
/// [`NotPaused`] says why it stays as it is.
pub fn with_paused(
    text: &str,
    table: &RouteTable,
    name: &str,
    paused: bool,
    default_bucket: &str,
) -> Result<String, NotPaused> {
    let routes = table.routes();
    let index = routes.iter().position(|route| route.name() == name);
    let index = index.ok_or(NotPaused::ByHand)?;
    if routes[index].is_paused() == paused {
        return Err(NotPaused::Already);
    }
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let mut heads = lines.iter().enumerate().filter(|(_, line)| {
        let bare: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        bare.starts_with("[[route]]")
    });
    let (head, _) = heads.nth(index).ok_or(NotPaused::ByHand)?;
    let end = lines[head + 1..].iter().position(|line| is_header(line));
    let end = end.map_or(lines.len(), |end| head + 1 + end);
    let own = (head + 1..end).find(|&at| {
        let field = lines[at].split('=').next().unwrap_or_default();
        field.trim() == "paused"
    });
    let ending = if lines[head].ends_with("\r\n") {
        "\r\n"
    } else {
        "\n"
    };
    let mut changed: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
    match (own, paused) {
        (Some(at), _) => drop(changed.remove(at)),
        (None, true) => {}
        (None, false) => return Err(NotPaused::ByHand),
    }
    if paused {
        if !changed[head].ends_with('\n') {
            changed[head] += ending;
        }
        changed.insert(head + 1, format!("paused = true{ending}"));
    }
    let changed = changed.concat();
    // Whatever it was that was edited, it must mean this and no more.
    let read = RouteTable::parse("", &changed, Some(default_bucket), Origin::Deployed);
    let read = read.map_err(|_| NotPaused::ByHand)?;
    let is_meant = read.routes().len() == routes.len()
        && read
            .routes()
            .iter()
            .zip(routes)
            .enumerate()
            .all(|(at, (new, old))| {
                says(new) == says(old)
                    && new.is_paused() == if at == index { paused } else { old.is_paused() }
            });
    if is_meant {
        Ok(changed)
    } else {
        Err(NotPaused::ByHand)
    }
}

/// What a route says, but for whether it is paused.
fn says(route: &Route) -> (String, String, String, String) {
    (
        route.name().to_owned(),
        format!("{} {}", route.repository(), route.pattern()),
        format!("{}/{}", route.bucket(), route.object()),
        format!("{:?}", route.sweep()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: &str = "[[space]]\nurl = \"https://example.backlog.com/git\"\n";

    fn change(text: &str, name: &str, paused: bool) -> Result<String, NotPaused> {
        let table = RouteTable::parse("", text, Some("sources"), Origin::Deployed).unwrap();
        with_paused(text, &table, name, paused, "sources")
    }

    #[test]
    fn one_line_comes_and_goes_and_all_else_stays() {
        let text = format!(
            "{SPACE}# The first.\n[[route]]\nname = \"one\" # here\nrepository = \"A/b\"\nref = \"refs/heads/m\"\nobject = \"m.zip\"\n\n\
             [[ route ]]  # The second.\r\nname = \"two\"\nrepository = \"A/b\"\nref = \"refs/heads/n\"\nobject = \"n.zip\""
        );
        let one = change(&text, "one", true).unwrap();
        assert_eq!(
            one,
            text.replacen("[[route]]\n", "[[route]]\npaused = true\n", 1)
        );
        assert_eq!(change(&one, "one", true), Err(NotPaused::Already));
        assert_eq!(change(&one, "one", false).unwrap(), text);
        let two = change(&text, "two", true).unwrap();
        assert_eq!(
            two,
            text.replace("second.\r\n", "second.\r\npaused = true\r\n")
        );
        assert_eq!(change(&two, "two", false).unwrap(), text);
        assert_eq!(change(&text, "two", false), Err(NotPaused::Already));
        let said = text.replace(
            "name = \"one\" # here\n",
            "name = \"one\"\npaused = false # not now\n",
        );
        assert!(
            change(&said, "one", true)
                .unwrap()
                .contains("[[route]]\npaused = true\n")
        );
        assert!(!change(&said, "one", true).unwrap().contains("not now"));
    }

    #[test]
    fn what_is_written_otherwise_is_left_to_people() {
        let inline = format!(
            "route = [{{name = \"one\", repository = \"A/b\", ref = \"refs/heads/m\", object = \"m.zip\"}}]\n{SPACE}"
        );
        assert_eq!(change(&inline, "one", true), Err(NotPaused::ByHand));
        // What looks like a header, and is a text.
        let hidden = format!(
            "{SPACE}[[route]]\nname = \"one\"\nrepository = \"A/b\"\nref = \"refs/heads/m\"\nobject = \"\"\"\\\n[[route]]\\\n.zip\"\"\"\n\
             [[route]]\nname = \"two\"\nrepository = \"A/b\"\nref = \"refs/heads/n\"\nobject = \"n.zip\"\n"
        );
        let table = RouteTable::parse("", &hidden, Some("sources"), Origin::Deployed);
        if table.is_ok() {
            assert_eq!(change(&hidden, "two", true), Err(NotPaused::ByHand));
        }
    }
}
