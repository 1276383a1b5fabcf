//! Any word may stand where a number is expected; what we write ourselves is read back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netdata_rs::wire::numbers::*;

fuzz_target!(|data: &[u8]| {
    let _ = (unsigned(data), integer(data), c_integer(data), plain_integer(data), double(data));
    let _ = (leading_integer(data), leading_bits(data), leading_decimal(data));
    let Some(bytes) = data.first_chunk::<8>() else { return };
    let bits = u64::from_le_bytes(*bytes);
    let mut out = Vec::new();
    for form in [Form::Base64, Form::Hex, Form::Decimal] {
        out.clear();
        put_unsigned(&mut out, bits, form);
        assert_eq!(unsigned(&out), Some(bits), "{form:?}");
        out.clear();
        put_integer(&mut out, bits as i64, form);
        assert_eq!(integer(&out), Some(bits as i64), "{form:?}");
        out.clear();
        let number = f64::from_bits(bits);
        put_double(&mut out, number, form);
        let back = double(&out);
        assert!(
            number.is_nan() || back == Some(number),
            "{form:?}: {number} came back as {back:?}"
        );
    }
});
