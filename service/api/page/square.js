// The square of an image that the model sees, and the heat map over it.

const KNOWN = { shorter_side: 256, image_size: 224 }; // until the model's card is there
const RAMP = [[0, [255, 236, 110]], [0.5, [250, 120, 30]], [1, [190, 10, 40]]]; // light to dark, as the drop grows

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
  const [numRows, numColumns] = [grid.length, grid[0].length];
  const largest = Math.max(...grid.flat());
  const cells = document.createElement("canvas");
  [cells.width, cells.height] = [numColumns, numRows];
  const pixels = new ImageData(numColumns, numRows);
  grid.flat().forEach((drop, index) => {
    const share = largest > 0 ? Math.max(0, drop) / largest : 0;
    pixels.data.set([...colour(share), Math.round(235 * Math.sqrt(share))], 4 * index);
  });
  cells.getContext("2d").putImageData(pixels, 0, 0);
  canvas.width = canvas.height = 224;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  return largest;
}

function colour(share) {
  const upper = Math.max(1, RAMP.findIndex(([at]) => at >= share));
  const [[from, start], [to, end]] = [RAMP[upper - 1], RAMP[upper]];
  return start.map((value, channel) => Math.round(value + (end[channel] - value) * (share - from) / (to - from)));
}
