//! Which names on the wire belong to one identity, as a native file's text says it, and changes to that
//! text which leave every other character as it is.
//!
//! ```toml
//! [services.beremiz.identities.plc-01]
//! wire = ["plc-01", "plc-01~2"]
//! ```

use std::fmt;

use toml_edit::{Array, DocumentMut, Item, RawString, Table, TableLike, Value};

/// The keys that these functions read and write.
const SERVICES: &str = "services";
const DEFAULTS: &str = "defaults";
const IDENTITIES: &str = "identities";
const WIRE: &str = "wire";

/// Why a text was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotEdited(String);

impl fmt::Display for NotEdited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotEdited {}

/// The text in which `identity` of `service` also owns the name `new`. If no names were declared for it,
/// `old` is declared too: what it presents today.
///
/// An identity that only `[defaults.identities]` knows is changed there: a table of the service's own would
/// stand in its place, and its `allow-from` and `expires` would hold no more.
///
/// # Errors
/// The text is no TOML, has no such service, or has something else where the names belong.
pub fn declare(
    text: &str,
    service: &str,
    identity: &str,
    old: &str,
    new: &str,
) -> Result<String, NotEdited> {
    let (mark, mut document) = parse(text)?;
    let services = document.get(SERVICES).and_then(Item::as_table_like);
    let service_item = services.and_then(|services| services.get(service));
    let of_defaults = !knows(service_item, identity) && knows(document.get(DEFAULTS), identity);
    let table = if of_defaults {
        document.get_mut(DEFAULTS)
    } else {
        let services = document.get_mut(SERVICES).and_then(Item::as_table_like_mut);
        services.and_then(|services| services.get_mut(service))
    };
    let table = table
        .and_then(Item::as_table_like_mut)
        .ok_or_else(|| NotEdited(format!("there is no table [services.{service}] in it")))?;
    let identities = child(table, IDENTITIES, true)?;
    let owner = child(identities, identity, false)?;
    let names = owner.entry(WIRE).or_insert_with(|| Item::Value(Array::from_iter([old]).into()));
    // One name may stand there without brackets.
    if let Some(only) = names.as_str().map(str::to_owned) {
        *names = Item::Value(Array::from_iter([only]).into());
    }
    let Some(list) = names.as_array_mut() else {
        return Err(NotEdited(format!("`{WIRE}` of {identity} is not a list of names")));
    };
    if !list.iter().any(|value| value.as_str() == Some(new)) {
        push(list, new);
    }
    Ok(written(text, mark, &document))
}

/// The text in which the name `gone` has no owner in the places where `loses` says so: it is asked with the
/// name of each service, and with none for `[defaults]`. `None` if nothing changes. An identity whose last
/// name that was is left out, unless more is said about it.
///
/// # Errors
/// The text is no TOML.
pub fn retract(
    text: &str,
    gone: &str,
    loses: impl Fn(Option<&str>) -> bool,
) -> Result<Option<String>, NotEdited> {
    let (mark, mut document) = parse(text)?;
    let defaults = document.get_mut(DEFAULTS).filter(|_| loses(None));
    let mut changed = defaults.is_some_and(|table| retract_from(table, gone));
    if let Some(services) = document.get_mut(SERVICES).and_then(Item::as_table_like_mut) {
        for (name, service) in services.iter_mut() {
            changed |= loses(Some(name.get())) && retract_from(service, gone);
        }
    }
    Ok(changed.then(|| written(text, mark, &document)))
}

/// Whether there was such a name among the identities of a service, or of the defaults.
fn retract_from(table: &mut Item, gone: &str) -> bool {
    let Some(table) = table.as_table_like_mut() else { return false };
    let Some(identities) = table.get_mut(IDENTITIES).and_then(Item::as_table_like_mut) else {
        return false;
    };
    let mut changed = false;
    let mut bare = Vec::new();
    for (identity, owner) in identities.iter_mut() {
        let Some(owner) = owner.as_table_like_mut() else { continue };
        let Some(names) = owner.get_mut(WIRE) else { continue };
        if !names_of(names).iter().any(|name| name == gone) {
            continue;
        }
        changed = true;
        if let Some(list) = names.as_array_mut() {
            pull(list, gone);
        }
        if names.as_array().is_none_or(Array::is_empty) {
            owner.remove(WIRE);
        }
        if owner.is_empty() {
            bare.push(identity.to_string());
        }
    }
    for identity in bare {
        identities.remove(&identity);
    }
    if identities.is_empty() {
        table.remove(IDENTITIES);
    }
    changed
}

/// Whether a service, or the defaults, say anything of an identity.
fn knows(table: Option<&Item>, identity: &str) -> bool {
    table
        .and_then(Item::as_table_like)
        .and_then(|table| table.get(IDENTITIES))
        .and_then(Item::as_table_like)
        .is_some_and(|identities| identities.contains_key(identity))
}

/// The text's byte order mark, which is no part of TOML, and the rest.
fn parse(text: &str) -> Result<(&str, DocumentMut), NotEdited> {
    let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mark = &text[..text.len() - rest.len()];
    // The message alone: what stands around the mistake may be a key that strayed into the file.
    let document = rest.parse().map_err(|error: toml_edit::TomlError| {
        NotEdited(format!("it is not TOML: {}", error.message()))
    })?;
    Ok((mark, document))
}

/// The document with the line ends of the text that it was: the parser keeps none but LF.
fn written(text: &str, mark: &str, document: &DocumentMut) -> String {
    let lines = document.to_string();
    let lines = if text.contains("\r\n") { lines.replace('\n', "\r\n") } else { lines };
    format!("{mark}{lines}")
}

fn names_of(item: &Item) -> Vec<String> {
    let one = item.as_str().map(str::to_owned).into_iter();
    let list = item.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    one.chain(list).collect()
}

/// The table under a key, made if it is missing: with a head of its own, unless it is `implicit` (has
/// only tables in it) or stands in an inline table.
fn child<'a>(
    table: &'a mut dyn TableLike,
    key: &str,
    implicit: bool,
) -> Result<&'a mut dyn TableLike, NotEdited> {
    let made = || {
        let mut made = Table::new();
        made.set_implicit(implicit);
        Item::Table(made)
    };
    table
        .entry(key)
        .or_insert_with(made)
        .as_table_like_mut()
        .ok_or_else(|| NotEdited(format!("`{key}` is not a table")))
}

/// Adds a name in the layout that the list has.
fn push(list: &mut Array, name: &str) {
    let mut value = Value::from(name);
    let comments = list.trailing().as_str().filter(|text| text.contains('#')).map(str::to_owned);
    if let Some(last) = list.len().checked_sub(1).and_then(|index| list.get_mut(index)) {
        let text =
            |raw: Option<&RawString>| raw.and_then(RawString::as_str).unwrap_or("").to_owned();
        let (before, after) = (text(last.decor().prefix()), text(last.decor().suffix()));
        // A break before the list's end stays before its end, and a comment behind a name, behind it.
        let lines = before.contains('\n');
        let indent = before.rsplit('\n').next().unwrap_or_default().to_owned();
        let mut prefix = if lines { format!("\n{indent}") } else { " ".to_owned() };
        if let Some(comments) = comments {
            let kept = comments.trim_end();
            prefix = format!("{kept}\n{indent}");
            list.set_trailing("\n");
        } else if after.contains('\n') {
            prefix = if lines { prefix } else { format!("\n{indent}") };
            if let Some(last) = list.len().checked_sub(1).and_then(|index| list.get_mut(index)) {
                last.decor_mut().set_suffix("");
            }
            value.decor_mut().set_suffix(after);
        }
        value.decor_mut().set_prefix(prefix);
    }
    list.push_formatted(value);
}

fn pull(list: &mut Array, name: &str) {
    let place = |list: &Array| list.iter().position(|value| value.as_str() == Some(name));
    while let Some(index) = place(list) {
        let gone = list.remove(index);
        if index == 0
            && let Some(first) = list.get_mut(0)
        {
            first.decor_mut().set_prefix(gone.decor().prefix().cloned().unwrap_or_default());
        }
        if index > 0
            && index == list.len()
            && let Some(last) = list.get_mut(index - 1)
        {
            last.decor_mut().set_suffix(gone.decor().suffix().cloned().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PLAIN: &str = "# the plant\n[log]\nlevel = \"info\"   # as ever\n\n[services.a]\nmode = \"server\"\n\
                         accept=3001\n\n# the other one\n[services.b]\nmode = 'server'\n";

    /// Every declared name of the services, in the order of the file.
    fn owned(text: &str) -> Vec<(String, String, String)> {
        let Ok((_, document)) = parse(text) else { return Vec::new() };
        let mut found = Vec::new();
        let Some(services) = document.get(SERVICES).and_then(Item::as_table_like) else {
            return found;
        };
        for (service, item) in services.iter() {
            let identities = item.as_table_like().and_then(|table| table.get(IDENTITIES));
            let Some(identities) = identities.and_then(Item::as_table_like) else { continue };
            for (identity, item) in identities.iter() {
                let names = item.as_table_like().and_then(|table| table.get(WIRE));
                let names = names.map(names_of).unwrap_or_default().into_iter();
                found.extend(names.map(|name| (service.to_owned(), identity.to_owned(), name)));
            }
        }
        found
    }

    fn everywhere(_: Option<&str>) -> bool {
        true
    }

    fn names(list: &str) -> String {
        format!("[services.a]\nidentities.plc.wire = {list}\n")
    }

    #[test]
    fn the_first_rotation_adds_a_table_and_touches_nothing_else() {
        let text = declare(PLAIN, "a", "plc-01", "plc-01", "plc-01~2").unwrap();
        let table = "\n[services.a.identities.plc-01]\nwire = [\"plc-01\", \"plc-01~2\"]\n";
        assert_eq!(text.replace(table, ""), PLAIN, "{text}");
        let name = |name: &str| ("a".to_owned(), "plc-01".to_owned(), name.to_owned());
        assert_eq!(owned(&text), [name("plc-01"), name("plc-01~2")]);
        assert!(text.find(table) < text.find("# the other one"), "beside its service: {text}");
        let again = declare(&text, "a", "plc-01", "plc-01", "plc-01~2").unwrap();
        assert_eq!(again, text, "said once");
        let third = declare(&text, "a", "plc-01", "plc-01~2", "plc-01~3").unwrap();
        assert_eq!(third, text.replace("~2\"]", "~2\", \"plc-01~3\"]"));
    }

    #[test]
    fn a_name_is_added_and_taken_out_in_the_layout_that_the_list_has() {
        for (before, after) in [
            (r#"["plc"]"#, r#"["plc", "new"]"#),
            (r#"[ "plc" , "two" ]"#, r#"[ "plc" , "two" , "new"]"#),
            (r#"'plc'"#, r#"["plc", "new"]"#),
            ("[\n    \"plc\",\n    \"two\",\n]", "[\n    \"plc\",\n    \"two\",\n    \"new\",\n]"),
            ("[\n  \"plc\",\n  \"two\"\n]", "[\n  \"plc\",\n  \"two\",\n  \"new\"\n]"),
            (
                "[\n  \"plc\", # one\n  \"two\", # two\n]",
                "[\n  \"plc\", # one\n  \"two\", # two\n  \"new\",\n]",
            ),
        ] {
            let text = declare(&names(before), "a", "plc", "plc", "new").unwrap();
            let found: Vec<_> = owned(&text).into_iter().map(|(_, _, name)| name).collect();
            assert_eq!(found.last().map(String::as_str), Some("new"), "{text}");
            assert_eq!(text, names(after));
            let without: Vec<_> = owned(&retract(&text, "new", everywhere).unwrap().unwrap());
            assert_eq!(without, owned(&names(before)));
        }
        let two = names("[\n  \"plc\", # one\n  \"two\", # two\n]");
        let one = retract(&two, "plc", everywhere).unwrap().unwrap();
        assert!(one.contains("# two") && one.contains("\n  \"two\""), "{one}");
    }

    #[test]
    fn identities_in_every_form_of_table_are_found() {
        for text in [
            "[services.a.identities.\"plc 1\"]\nallow-from = \"10.0.0.0/8\"\n",
            "[services.a]\nidentities.\"plc 1\".allow-from = \"10.0.0.0/8\"\n",
            "[services.a]\nidentities = { \"plc 1\" = { allow-from = \"10.0.0.0/8\" } }\n",
            "[services]\na = { mode = \"server\" }\n",
        ] {
            let after = declare(text, "a", "plc 1", "plc 1", "plc 1~2").unwrap();
            assert_eq!(owned(&after).len(), 2, "{after}");
            assert_eq!(after.contains("10.0.0.0/8"), text.contains("10.0.0.0/8"));
            let back = retract(
                &retract(&after, "plc 1", everywhere).unwrap().unwrap(),
                "plc 1~2",
                everywhere,
            )
            .unwrap();
            let back = back.unwrap();
            assert_eq!(owned(&back), []);
            assert_eq!(back.contains("10.0.0.0/8"), text.contains("10.0.0.0/8"), "{back}");
        }
    }

    #[test]
    fn what_was_declared_and_retracted_leaves_the_text_as_it_was() {
        let text = declare(PLAIN, "b", "plc", "plc", "plc~2").unwrap();
        let one = retract(&text, "plc", everywhere).unwrap().unwrap();
        assert_eq!(owned(&one).len(), 1);
        assert_eq!(retract(&one, "plc~2", everywhere).unwrap().unwrap(), PLAIN);
        assert_eq!(retract(PLAIN, "plc", everywhere).unwrap(), None);
    }

    #[test]
    fn an_identity_of_the_defaults_is_changed_there_and_keeps_its_rules() {
        let rules = "[defaults.identities.plc]\nallow-from = \"10.0.0.0/8\"\n";
        let text = format!("{rules}\n{PLAIN}");
        let after = declare(&text, "a", "plc", "plc", "plc~2").unwrap();
        assert_eq!(after, text.replace(rules, &format!("{rules}wire = [\"plc\", \"plc~2\"]\n")));
        assert_eq!(declare(&after, "b", "plc", "plc", "plc~2").unwrap(), after, "for both");
        let back =
            retract(&retract(&after, "plc~2", everywhere).unwrap().unwrap(), "plc", everywhere)
                .unwrap();
        assert_eq!(back.unwrap(), text);
        let own = format!("{text}identities.plc.wire = 'plc'\n");
        let after = declare(&own, "b", "plc", "plc", "plc~2").unwrap();
        assert!(after.starts_with(&text), "a service's own stands before: {after}");
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_stay() {
        let text = format!("\u{feff}{}", PLAIN.replace('\n', "\r\n"));
        let after = declare(&text, "a", "plc", "plc", "plc~2").unwrap();
        let table = "\r\n[services.a.identities.plc]\r\nwire = [\"plc\", \"plc~2\"]\r\n";
        assert_eq!(after.replace(table, ""), text);
    }

    #[test]
    fn what_cannot_be_edited_is_said_without_showing_the_text() {
        let key = "client1:c2VjcmV0c2VjcmV0c2VjcmV0";
        let said = declare(key, "a", "b", "b", "c").unwrap_err().to_string();
        assert!(said.contains("TOML") && !said.contains("c2Vj"), "{said}");
        assert!(declare(PLAIN, "c", "x", "x", "y").unwrap_err().to_string().contains("services.c"));
        for list in ["3", "{ a = 1 }"] {
            assert!(declare(&names(list), "a", "plc", "plc", "new").is_err());
        }
        assert!(retract(key, "b", everywhere).is_err());
    }

    #[test]
    fn a_name_stays_where_a_service_still_has_its_key() {
        let of =
            |service: &str| format!("[{service}.identities.plc]\nwire = [\"plc\", \"plc~2\"]\n");
        let (a, b, defaults) = (of("services.a"), of("services.b"), of("defaults"));
        let text = format!("{defaults}{a}{b}");
        let without = |part: &str| part.replace("\"plc\", ", "");
        let only_a = retract(&text, "plc", |place| place == Some("a")).unwrap().unwrap();
        assert_eq!(only_a, format!("{defaults}{}{b}", without(&a)));
        let only_defaults = retract(&text, "plc", |place| place.is_none()).unwrap().unwrap();
        assert_eq!(only_defaults, format!("{}{a}{b}", without(&defaults)));
        assert_eq!(retract(&text, "plc", |_| false).unwrap(), None);
    }
}
