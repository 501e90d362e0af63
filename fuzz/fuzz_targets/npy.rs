#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gcc_gan::testing::formats::npy(bytes));
