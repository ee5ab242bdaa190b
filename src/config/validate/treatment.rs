//! What becomes of options that do not work here: a notice, a warning or a refusal, by their rows.

use super::*;

impl Checker<'_> {
    /// Judges everything that does not work here by its row's treatment.
    pub(super) fn report_treatments(&mut self, values: &Values, has_psk: bool) {
        for (opt, said) in values.iter() {
            let row = opt.row();
            let name = row.name(self.dialect);
            let text = match &said.value {
                Value::Text(text) => text.as_str(),
                _ => "",
            };
            let asks_for_nothing =
                |fine: &[&str]| fine.iter().any(|value| value.eq_ignore_ascii_case(text));
            let accepted = |why: &str| {
                Diagnostic::notice("without-effect", format!("`{name}` has no effect: {why}"))
            };
            let found = match row.treatment {
                Treatment::Works => continue,
                Treatment::Harmless(_) if too_small_a_stack(opt, &said.value) => {
                    Diagnostic::warning("small-stack", "Illegal thread stack size for stunnel 5.76 and later")
                        .help("remove the line: there is no thread for each connection here")
                }
                Treatment::Harmless(why) => accepted(why),
                Treatment::NeedsCertificates(fine)
                | Treatment::Later(fine)
                | Treatment::Never(fine, _)
                    if asks_for_nothing(fine) =>
                {
                    accepted("this is the default anyway")
                }
                Treatment::OwnCertificate | Treatment::AboutCertificates if !has_psk => continue,
                Treatment::AboutCertificates if certificates::asks_for_nothing(&said.value) => {
                    accepted("this is the default anyway")
                }
                Treatment::AboutCertificates => accepted(certificates::KEY_IS_DEMANDED),
                Treatment::OwnCertificate => accepted("with pre-shared keys no certificate is shown"),
                // Seen in stunnel 5.68: a client that proves a key and has no certificate is redirected.
                Treatment::NeedsCertificates(_) if opt == OptionId::Redirect && has_psk => {
                    Diagnostic::error(
                        "needs-certificates",
                        "`redirect` sends every client without a certificate elsewhere, one with the right key too",
                    )
                    .help("remove it to have clients with a key reach `connect`")
                }
                Treatment::NeedsCertificates(_) => Diagnostic::error(
                    "needs-certificates",
                    format!("`{name}` is about certificates, and only pre-shared keys are supported"),
                )
                .help("remove it if the pre-shared key is all the proof you need; it is refused because to ignore it could weaken your protection"),
                // xapi and others look for these words.
                Treatment::Later(_) if opt == OptionId::Fips => {
                    Diagnostic::error("no-fips", "FIPS support is not available")
                        .help("remove it, or write fips = no")
                }
                Treatment::Later(_) => Diagnostic::error(
                    "not-supported-yet",
                    format!("`{name}` is not supported yet"),
                )
                .help("remove it if you can do without it; it is refused because to ignore it would change what your configuration means"),
                Treatment::Never(_, why) => {
                    Diagnostic::error("never-supported", format!("`{name}` is not supported: {why}"))
                        .help("remove it")
                }
            };
            self.report.push(found.at(said.place.clone()));
        }
    }
}

/// What stunnel 5.82 does not start with. Here there is no such stack.
fn too_small_a_stack(opt: OptionId, value: &Value) -> bool {
    /// PTHREAD_STACK_MIN of Linux, in bytes.
    const LEAST_STACK: u32 = 16_384;
    opt == OptionId::Stack && matches!(value, Value::Count(bytes) if *bytes < LEAST_STACK)
}
