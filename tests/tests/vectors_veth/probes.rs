//! Small programs that forge, drop and look: what a packet goes through beside ours.

use wificall_tests::programs::raw::Insn;

use crate::EF;

/// `return skb->csum is there && it is the sum over the len bytes behind Ethernet ? TC_ACT_UNSPEC : TC_ACT_SHOT`.
pub fn drop_wrong_sum(len: i32) -> Vec<Insn> {
    let fold = |register| {
        [
            Insn::new(0xbf, 1, register, 0, 0),  // r1 = r
            Insn::new(0x57, 1, 0, 0, 0xffff),    // r1 &= 0xffff
            Insn::new(0x77, register, 0, 0, 16), // r >>= 16
            Insn::new(0x0f, register, 1, 0, 0),  // r += r1
        ]
    };
    let mut code = vec![
        Insn::new(0xbf, 6, 1, 0, 0), // r6 = skb
        Insn::new(0xb7, 2, 0, 0, 0),
        Insn::new(0x85, 0, 0, 0, 40), // r0 = bpf_csum_update(skb, 0)
        Insn::new(0xbf, 7, 0, 0, 0),  // r7 = r0
        Insn::new(0x65, 7, 0, 2, -1), // if r7 s> -1 goto there
    ];
    code.extend(Insn::empty(2));
    code.extend([
        Insn::new(0x61, 3, 6, 76, 0), // r3 = skb->data + 14
        Insn::new(0x07, 3, 0, 0, 14),
        Insn::new(0x61, 4, 6, 80, 0), // r4 = skb->data_end
        Insn::new(0xbf, 5, 3, 0, 0),
        Insn::new(0x07, 5, 0, 0, len),
        Insn::new(0xbd, 5, 4, 2, 0), // if r3 + len <= r4 goto there
    ]);
    code.extend(Insn::empty(2));
    code.extend([
        Insn::new(0xb7, 1, 0, 0, 0),
        Insn::new(0xb7, 2, 0, 0, 0),
        Insn::new(0xb7, 4, 0, 0, len),
        Insn::new(0xb7, 5, 0, 0, 0),
        Insn::new(0x85, 0, 0, 0, 28), // r0 = bpf_csum_diff(0, 0, r3, len, 0)
        Insn::new(0xbf, 8, 0, 0, 0),  // r8 = r0
    ]);
    for register in [7, 7, 8, 8] {
        code.extend(fold(register));
    }
    code.push(Insn::new(0x1d, 7, 8, 2, 0)); // if r7 == r8 goto pass
    code.extend(Insn::empty(2));
    code.extend(Insn::empty(-1));
    code
}

/// Sets the traffic class to EF and does not tell the skb.
pub fn store_without_sum() -> Vec<Insn> {
    let head = i32::from_le_bytes([0x60 | EF >> 4, EF << 4 | 0x1, 0x23, 0x45]);
    let mut code = vec![
        Insn::new(0x62, 10, 0, -4, head),
        Insn::new(0xb7, 2, 0, 0, 14),
        Insn::new(0xbf, 3, 10, 0, 0),
        Insn::new(0x07, 3, 0, 0, -4),
        Insn::new(0xb7, 4, 0, 0, 4),
        Insn::new(0xb7, 5, 0, 0, 0),
        Insn::new(0x85, 0, 0, 0, 9), // bpf_skb_store_bytes(skb, 14, &head, 4, 0)
    ];
    code.extend(Insn::empty(-1));
    code
}

/// `return bpf_xdp_adjust_meta(ctx, -len) == 0 && room ? write words, XDP_PASS : XDP_ABORTED`.
pub fn forge<const N: usize>(words: [u32; N]) -> Vec<Insn> {
    let len = 4 * words.len() as i32;
    let count = words.len() as i16;
    let mut code = vec![
        Insn::new(0xbf, 6, 1, 0, 0),         // r6 = ctx
        Insn::new(0xb7, 2, 0, 0, -len),      // r2 = -len
        Insn::new(0x85, 0, 0, 0, 54),        // r0 = bpf_xdp_adjust_meta(ctx, r2)
        Insn::new(0x55, 0, 0, count + 6, 0), // if r0 != 0 goto out
        Insn::new(0x61, 2, 6, 8, 0),         // r2 = ctx->data_meta
        Insn::new(0x61, 3, 6, 0, 0),         // r3 = ctx->data
        Insn::new(0xbf, 4, 2, 0, 0),         // r4 = r2 + len
        Insn::new(0x07, 4, 0, 0, len),
        Insn::new(0x2d, 4, 3, count + 1, 0), // if r4 > r3 goto out
    ];
    for (index, word) in words.into_iter().enumerate() {
        code.push(Insn::new(0x62, 2, 0, 4 * index as i16, word.cast_signed()));
    }
    code.push(Insn::new(0x05, 0, 0, 2, 0)); // goto pass
    code.extend(Insn::empty(0)); // out
    code.extend(Insn::empty(2)); // pass
    code
}

/// `return data + 34 > data_end ? TC_ACT_UNSPEC : TC_ACT_SHOT`: an IPv4 header in the linear part is too much.
pub fn drop_linear() -> Vec<Insn> {
    let mut code = vec![
        Insn::new(0x61, 2, 1, 76, 0), // r2 = skb->data
        Insn::new(0x61, 3, 1, 80, 0), // r3 = skb->data_end
        Insn::new(0x07, 2, 0, 0, 34),
        Insn::new(0x2d, 2, 3, 2, 0), // if r2 > r3 goto pass
    ];
    code.extend(Insn::empty(2));
    code.extend(Insn::empty(-1));
    code
}
