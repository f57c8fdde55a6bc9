// The square of an image that the model sees, and the heat map over it.

const KNOWN = { shorter_side: 256, image_size: 224 }; // until the model's card is there
const COLOUR = [255, 0, 255]; // as in the service's own heat map: it differs from leaves and most petals
const MIN_SCALE = 0.01; // a drop that is no more than rounding must not glow

/**
 * Draw the upright centre square, as the resize rule cuts it out. Transparent pixels become white.
 * Rejects where the browser cannot show the format.
 */
export async function drawSquare(canvas, blob, preprocessing = KNOWN) {
  const { shorter_side: shorterSide, image_size: imageSize } = { ...KNOWN, ...preprocessing };
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
  const side = Math.min(bitmap.width, bitmap.height) * imageSize / shorterSide;
  const [left, top] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
  canvas.width = canvas.height = imageSize;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, imageSize, imageSize);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, left, top, side, side, 0, 0, imageSize, imageSize);
  bitmap.close();
}

/** Draw the positive drops of a grid, smoothly. Return the largest drop, which is 0 or less without any. */
export function drawHeat(canvas, grid) {
  const largest = Math.max(...grid.flat());
  const cells = document.createElement("canvas");
  [cells.width, cells.height] = [grid[0].length, grid.length];
  const pixels = new ImageData(cells.width, cells.height);
  grid.flat().forEach((drop, index) => {
    pixels.data.set([...COLOUR, Math.round(255 * Math.max(0, drop) / Math.max(largest, MIN_SCALE))], 4 * index);
  });
  cells.getContext("2d").putImageData(pixels, 0, 0);
  [canvas.width, canvas.height] = [KNOWN.image_size, KNOWN.image_size];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  return largest;
}
