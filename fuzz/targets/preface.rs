#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pskgate::fuzzing::preface(data));
