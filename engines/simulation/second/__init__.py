"""A second generator of layout and texture, for testing alone.

It shares physics, numbers of families and the canvas with the first one, but no way of drawing:
textures are scattered grains instead of filtered noise, mosaics bricks and polygons instead of
Voronoi cells, cells level sets and chains instead of stamps, dirt exact spheres, blocks and
random walks instead of wobbly outlines.
"""
