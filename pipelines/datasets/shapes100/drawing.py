"""Pictures of shapes, from signed distances.

A shape is given by its signed distance, negative inside, in its own frame, where it
is about 1 in radius. The distance is computed once on a fine grid. Each picture looks
it up through a random pose, and paints from it the antialiased shape and its fill, with
clutter behind it, an occluder before it, light and noise.

No class depends on the side that a picture shows or on where in it the shape stands:
shapes differ by more than a rotation, a reflection or a mild stretch.
"""

import functools

import numpy as np

SIZE = 32
FILLS = ("solid", "outline", "striped", "dotted", "ringed")
GRID_SIZE = 128
GRID_REACH = 2.4


def _arc(radius, start, end, count=40):
    angle = np.linspace(np.radians(start), np.radians(end), count)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _polygon(corners, inner=None):
    """A regular polygon, or with an inner radius a star of that many points."""
    if inner is None:
        return _arc(1.0, 90, 450, corners + 1)[:-1]
    star = _arc(1.0, 90, 450, 2 * corners + 1)[:-1]
    star[1::2] *= inner
    return star


def _heart(count=48):
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, y + 2], axis=-1) / 16


def signed_distance(points, vertices):
    """The distance of points to a closed outline, negative inside it.

    Args:
        points: Array of shape `(..., 2)`.
        vertices: Of the outline, an array of shape `(n, 2)`; the last joins the first.
    """
    start, end = vertices, np.roll(vertices, -1, axis=0)
    edge = end - start
    offset = points[..., None, :] - start
    length = np.maximum((edge**2).sum(-1), 1e-12)
    along = np.clip((offset * edge).sum(-1) / length, 0, 1)
    nearest = offset - along[..., None] * edge
    distance = np.sqrt((nearest**2).sum(-1).min(-1))
    # Even-odd rule: a ray to the right crosses the outline of what it starts inside.
    y = points[..., None, 1]
    spans = (start[:, 1] > y) != (end[:, 1] > y)
    rise = np.where(edge[:, 1] == 0, 1.0, edge[:, 1])
    crosses = spans & (offset[..., 0] < offset[..., 1] / rise * edge[:, 0])
    return np.where(crosses.sum(-1) % 2 == 1, -distance, distance)


def outlined(vertices):
    """The signed distance of an outline, as a function of points."""
    return functools.partial(signed_distance, vertices=np.asarray(vertices, float))


SHAPES = {
    "circle": lambda points: np.hypot(*points.T).T - 0.9,
    "ellipse": outlined(_polygon(48) * (1.15, 0.55)),
    "semicircle": outlined(_arc(1.1, 0, 180) - (0, 0.45)),
    "pie": outlined(np.concatenate([_arc(1.0, 45, 315), [[0.0, 0.0]]])),
    "crescent": outlined(
        np.concatenate([_arc(1.0, 50, 310), _arc(0.78, 282, 78) + (0.48, 0.0)])
    ),
    "heart": outlined(_heart()),
    "drop": outlined(np.concatenate([_arc(0.7, 150, 390) - (0, 0.35), [[0.0, 1.2]]])),
    "ring": lambda points: np.abs(np.hypot(*points.T).T - 0.78) - 0.27,
    "square": outlined(_polygon(4) * 1.1),
    "rectangle": outlined([(-1.2, -0.5), (1.2, -0.5), (1.2, 0.5), (-1.2, 0.5)]),
    "rhombus": outlined([(-1.25, 0), (0, -0.65), (1.25, 0), (0, 0.65)]),
    "trapezoid": outlined([(-1.15, -0.6), (1.15, -0.6), (0.5, 0.6), (-0.5, 0.6)]),
    "triangle": outlined(_polygon(3) * 1.15),
    "pentagon": outlined(_polygon(5)),
    "hexagon": outlined(_polygon(6) * (1.15, 0.8)),
    "star4": outlined(_polygon(4, inner=0.38) * 1.25),
    "star5": outlined(_polygon(5, inner=0.42) * 1.2),
    "cross": outlined(
        [(-0.35, 1.1), (-0.35, 0.35), (-1.1, 0.35), (-1.1, -0.35), (-0.35, -0.35)]
        + [(-0.35, -1.1), (0.35, -1.1), (0.35, -0.35), (1.1, -0.35), (1.1, 0.35)]
        + [(0.35, 0.35), (0.35, 1.1)]
    ),
    "tee": outlined(
        [(-1.1, 1.0), (-1.1, 0.35), (-0.33, 0.35), (-0.33, -1.1), (0.33, -1.1)]
        + [(0.33, 0.35), (1.1, 0.35), (1.1, 1.0)]
    ),
    "arrow": outlined(
        [(0, 1.2), (-1.0, 0.15), (-0.35, 0.15), (-0.35, -1.1), (0.35, -1.1)]
        + [(0.35, 0.15), (1.0, 0.15)]
    ),
}


@functools.cache
def distance_grids():
    """The signed distances of all shapes on a fine grid, `(shape, row, column)`."""
    axis = np.linspace(-GRID_REACH, GRID_REACH, GRID_SIZE)
    points = np.stack(np.meshgrid(axis, axis), axis=-1)
    return np.stack([shape(points) for shape in SHAPES.values()]).astype("float32")


def draw(shapes, fills, rng):
    """Draws a batch of pictures.

    Args:
        shapes: The shapes, indices of `SHAPES`, of shape `(n,)`.
        fills: The fills, indices of `FILLS`, of shape `(n,)`.
        rng: A `numpy.random.Generator`, from which all that is random is drawn.

    Returns:
        A uint8 array of shape `(n, SIZE, SIZE, 3)`.
    """
    count = len(shapes)

    def uniform(low, high, *shape):
        return rng.uniform(low, high, (count, *shape)).astype("float32")

    axis = (np.arange(SIZE, dtype="float32") + 0.5) / SIZE * 2 - 1
    x, y = axis[None, None, :], axis[None, :, None]

    # The pose: from the picture's frame to the shape's own.
    radius = uniform(0.28, 0.7, 1, 1)
    stretch, shear = uniform(0.87, 1.15, 1, 1), uniform(-0.12, 0.12, 1, 1)
    angle = uniform(-0.5, 0.5, 1, 1)
    dx, dy = x - uniform(-0.2, 0.2, 1, 1), y - uniform(-0.2, 0.2, 1, 1)
    u = (np.cos(angle) * dx + np.sin(angle) * dy) / radius * stretch
    v = (np.cos(angle) * dy - np.sin(angle) * dx) / radius / stretch
    u = u + shear * v
    pixel = 2 / SIZE / radius
    distance = _look_up(shapes, u, v)
    shape = _cover(distance, pixel)

    # The paint inside: 1 for the first colour, 0 for the second.
    paint = np.select(
        [(fills == i)[:, None, None] for i in range(len(FILLS))],
        [
            np.ones_like(distance),
            _cover(-0.26 - distance, pixel),
            _cover(0.25 * np.sin(2 * np.pi * u / 0.55) / np.pi, pixel),
            _cover(0.16 - _to_lattice(u, v, 0.55), pixel),
            _cover(0.21 * np.sin(2 * np.pi * distance / 0.42) / np.pi, pixel),
        ],
    )
    background, first, second = _colours(count, rng)
    second = np.where((fills == 1)[:, None], background, second)

    # The picture, from back to front.
    image = np.broadcast_to(background[:, None, None], (count, SIZE, SIZE, 3))
    for _ in range(4):
        stroke = _stroke(x, y, uniform, reach=0.35, width=(0.04, 0.13))
        image = _over(image, stroke, uniform(20, 235, 3))
    painted = _over(second[:, None, None], paint, first)
    image = image + shape[..., None] * (painted - image)
    occluder = _stroke(x, y, uniform, reach=0.8, width=(0.05, 0.16))
    image = _over(image, occluder, uniform(20, 235, 3))

    # Light that falls from one side, and noise.
    side = uniform(0, 2 * np.pi, 1, 1)
    light = 1 + uniform(0, 0.35, 1, 1) * (np.cos(side) * x + np.sin(side) * y)
    noise = rng.standard_normal(image.shape, dtype="float32")
    image = image * light[..., None] + uniform(3, 30, 1, 1, 1) * noise
    return np.clip(np.rint(image), 0, 255).astype("uint8")


def _look_up(shapes, u, v):
    """Bilinear interpolation of each picture's shape in its grid."""
    scale = (GRID_SIZE - 1) / (2 * GRID_REACH)
    column, row = (
        np.clip((w + GRID_REACH) * scale, 0, GRID_SIZE - 1.001) for w in (u, v)
    )
    left, top = column.astype("int32"), row.astype("int32")
    s, t = column - left, row - top
    grids, z = distance_grids(), shapes[:, None, None]
    upper = grids[z, top, left] * (1 - s) + grids[z, top, left + 1] * s
    lower = grids[z, top + 1, left] * (1 - s) + grids[z, top + 1, left + 1] * s
    return upper * (1 - t) + lower * t


def _cover(distance, pixel):
    """The share of a pixel that lies inside, from its centre's signed distance."""
    return np.clip(0.5 - distance / pixel, 0, 1)


def _to_lattice(u, v, period):
    """The distance to the nearest point of a square lattice, `period` apart."""
    return np.hypot(*(w - period * np.rint(w / period) for w in (u, v)))


def _stroke(x, y, uniform, reach, width):
    """The cover of a random thick line with round ends."""
    ax, ay = uniform(-1, 1, 1, 1), uniform(-1, 1, 1, 1)
    ex, ey = uniform(-reach, reach, 1, 1), uniform(-reach, reach, 1, 1)
    along = ((x - ax) * ex + (y - ay) * ey) / (ex**2 + ey**2 + 1e-6)
    along = np.clip(along, 0, 1)
    distance = np.hypot(x - ax - along * ex, y - ay - along * ey)
    return _cover(distance - uniform(*width, 1, 1), 2 / SIZE)


def _over(below, cover, colour):
    return below + cover[..., None] * (colour[:, None, None] - below)


def _colours(count, rng):
    """Random colours: a dark background, a bright paint, and one between the two."""
    background = rng.uniform(10, 120, (count, 3)).astype("float32")
    first = rng.uniform(130, 245, (count, 3)).astype("float32")
    share = rng.uniform(0.3, 0.5, (count, 1)).astype("float32")
    return background, first, background + share * (first - background)
