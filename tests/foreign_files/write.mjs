// Writes each photo as PNGs of many kinds with sharp, and with pngjs from sharp's pixels.
// node write.mjs MODULES OUT PHOTO...
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join } from 'node:path'

const [modules, out, ...photos] = process.argv.slice(2)
const require = createRequire(join(modules, 'package.json'))
const sharp = require('sharp')
const { PNG } = require('pngjs')

const BY_SHARP = {
  plain: (image) => image.png(),
  'metadata': (image) => image.keepMetadata().png(),
  interlaced: (image) => image.keepMetadata().png({ progressive: true, compressionLevel: 9 }),
  palette: (image) => image.keepMetadata().png({ palette: true, colours: 100 }),
  'palette of 4': (image) => image.png({ palette: true, colours: 4 }),
  grey: (image) => image.keepMetadata().greyscale().png({ adaptiveFiltering: true }),
  bitmap: (image) => image.greyscale().threshold(128).png({ palette: true, colours: 2 }),
  'grey alpha': (image) => image.greyscale().ensureAlpha(0.5).toColourspace('b-w').png(),
  alpha: (image) => image.keepMetadata().ensureAlpha(0.5).png(),
  '16 bit': (image) => image.keepMetadata().toColourspace('rgb16').png(),
  '16 bit alpha': (image) => image.ensureAlpha(0.5).toColourspace('rgb16').png(),
  '16 bit grey': (image) => image.toColourspace('grey16').png()
}

for (const photo of photos) {
  const name = basename(photo, '.jpg')
  for (const [kind, write] of Object.entries(BY_SHARP)) {
    const data = await write(sharp(readFileSync(photo))).toBuffer()
    writeFileSync(join(out, `sharp-${name}-${kind.replaceAll(' ', '_')}.png`), data)
  }
  const { data, info } = await sharp(readFileSync(photo)).ensureAlpha(0.75).raw().toBuffer({ resolveWithObject: true })
  const deep = Uint16Array.from(data, (value) => value * 257)
  for (const colorType of [0, 2, 4, 6]) {
    for (const bitDepth of [8, 16]) {
      const png = new PNG({ width: info.width, height: info.height })
      png.data = bitDepth === 8 ? data : Buffer.from(deep.buffer)
      const options = { colorType, bitDepth, inputColorType: 6, inputHasAlpha: true, filterType: -1 }
      writeFileSync(join(out, `pngjs-${name}-${colorType}-${bitDepth}.png`), PNG.sync.write(png, options))
    }
  }
}
