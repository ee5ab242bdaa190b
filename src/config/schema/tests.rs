use super::*;
use crate::config::options::Treatment;

#[test]
fn every_native_option_is_in_it_with_its_sentence_and_its_default() {
    let made: Value = serde_json::from_str(&schema()).unwrap();
    let of = |table: TomlTable| match table {
        TomlTable::Top => &made["properties"],
        TomlTable::Log => &made["properties"]["log"]["properties"],
        TomlTable::Control => &made["properties"]["control"]["properties"],
        TomlTable::Http => &made["properties"]["http"]["properties"],
        TomlTable::Service => &made["definitions"]["service"]["properties"],
        TomlTable::Identity => &made["definitions"]["identity"]["properties"],
    };
    let mut count = 0;
    for row in TABLE {
        let Some((table, key)) = row.native else { continue };
        let option = &of(table)[key];
        assert_eq!(option["description"], row.doc, "{key}");
        let default = match &option["default"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(default, row.native_default, "{key}");
        assert_eq!(row.treatment, Treatment::Works, "{key}: the schema offers it");
        count += 1;
    }
    assert!(count >= 60, "only {count} options");
}

#[test]
fn only_the_rules_of_identities_are_read_as_nothing_in_particular() {
    for row in TABLE.iter().filter(|row| row.native.is_some()) {
        assert_eq!(row.kind == ValueKind::Raw, row.opt == OptionId::Identities, "{:?}", row.opt);
    }
}
