//! Memory for the log's writes: whole blocks, aligned as direct I/O wants them.

use std::fmt;
use std::ops::Deref;

use super::BLOCK_BYTES;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

const _: () = assert!(align_of::<Block>() == BLOCK_BYTES && size_of::<Block>() == BLOCK_BYTES);

/// Bytes that grow at their end and begin at a block's alignment. Reads as what was put in.
#[derive(Clone, Default)]
pub struct BlockBuffer {
    /// All of them are initialized, also behind `len`.
    blocks: Vec<Block>,
    len: usize,
}

impl BlockBuffer {
    /// Forgets the bytes and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for so many more bytes and returns it; what it holds is of no account.
    pub fn grow(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.len;
        self.len += bytes;
        self.have_blocks(self.len.div_ceil(BLOCK_BYTES));
        &mut bytes_of_mut(&mut self.blocks)[start..start + bytes]
    }

    /// Adds these bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytes_of_mut(&mut self.blocks)[..self.len]
    }

    /// The bytes as whole blocks: filled up with zeros, of which there are at least so many.
    pub fn padded(&mut self, zeros: usize) -> &[u8] {
        let blocks = (self.len + zeros).div_ceil(BLOCK_BYTES);
        self.have_blocks(blocks);
        let all = &mut bytes_of_mut(&mut self.blocks)[..blocks * BLOCK_BYTES];
        all[self.len..].fill(0);
        all
    }

    fn have_blocks(&mut self, blocks: usize) {
        if self.blocks.len() < blocks {
            self.blocks.resize(blocks, Block([0; BLOCK_BYTES]));
        }
    }
}

fn bytes_of(blocks: &[Block]) -> &[u8] {
    // SAFETY: a block is an array of bytes without padding, so the slice's memory is that many initialized bytes.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), size_of_val(blocks)) }
}

fn bytes_of_mut(blocks: &mut [Block]) -> &mut [u8] {
    // SAFETY: as in `bytes_of`, and any bytes make a valid block.
    unsafe { std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), size_of_val(blocks)) }
}

impl Deref for BlockBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytes_of(&self.blocks)[..self.len]
    }
}

impl fmt::Debug for BlockBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_pads_and_is_used_again_without_showing_old_bytes() {
        let mut b = BlockBuffer::default();
        b.extend_from_slice(&[7; BLOCK_BYTES - 8]);
        assert_eq!(b.as_ptr() as usize % BLOCK_BYTES, 0);
        assert_eq!(b.padded(32).len(), 2 * BLOCK_BYTES, "there is no room for the zeros in the first block");
        assert_eq!(b.padded(8).len(), BLOCK_BYTES);
        b.grow(100).fill(8);
        assert_eq!((b.len(), b[BLOCK_BYTES - 9], b[BLOCK_BYTES - 8]), (BLOCK_BYTES + 92, 7, 8));
        b.clear();
        b.extend_from_slice(b"new");
        let padded = b.padded(1);
        assert_eq!(padded.len(), BLOCK_BYTES);
        assert!(padded.starts_with(b"new") && padded[3..].iter().all(|x| *x == 0));
        assert_eq!(&*b, b"new");
    }
}
