//! SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF") of a tuple.
//!
//! What hashes any number of bytes looks at how many they are; a tuple always has 36, and a lookup is mostly this.

/// The hash of the first 36 bytes of `words`, the last of which is half a word and less than 2³².
pub(super) fn hash((k0, k1): (u64, u64), words: [u64; 5]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let [a, b, c, d, e] = words;
    for word in [a, b, c, d, e | 36 << 56] {
        v[3] ^= word;
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    proptest! {
        /// The same as another implementation's.
        #[test]
        fn it_is_siphash(key in any::<(u64, u64)>(), words in any::<[u64; 4]>(), half in any::<u32>()) {
            let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            bytes.extend(half.to_le_bytes());
            let [a, b, c, d] = words;
            prop_assert_eq!(
                super::hash(key, [a, b, c, d, half.into()]),
                SipHasher13::new_with_keys(key.0, key.1).hash(&bytes)
            );
        }
    }
}
