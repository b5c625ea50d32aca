/** The smallest entries that a daemon takes: safetensors blobs, as docs/on-disk-format.md has them. */

interface Field {
  dtype: 'U8' | 'F16';
  shape: number[];
}

const RGB = { dtype: 'U8', shape: [4, 4, 3] } as const;
const L = { dtype: 'U8', shape: [4, 4] } as const;

export function personBlob(): Buffer {
  return blob(
    { human_img: RGB, mask: L, mask_gray: L, pose_tensor: { dtype: 'F16', shape: [1, 3, 4, 4] } },
    { 'human_img.mode': 'RGB', 'mask.mode': 'L', 'mask_gray.mode': 'L' },
  );
}

/** `side`: of the tensor, of which an element has 2 bytes. */
export function garmentBlob(side = 4): Buffer {
  return blob(
    { garm_img: RGB, garm_tensor: { dtype: 'F16', shape: [1, 3, side, side] } },
    { 'garm_img.mode': 'RGB' },
  );
}

function blob(fields: Record<string, Field | typeof RGB | typeof L>, modes: object): Buffer {
  const header: Record<string, unknown> = { __metadata__: { 'cachesvc.format': '1', ...modes } };
  let end = 0;
  for (const [name, { dtype, shape }] of Object.entries(fields)) {
    const begin = end;
    end += shape.reduce((product, length) => product * length, dtype === 'F16' ? 2 : 1);
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded, Buffer.alloc(end, 7)]);
}
