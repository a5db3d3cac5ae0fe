"""The schemas of the groups in conf/: types, units and ranges. No values: those live in conf/.

`Annotated[int, Range(...)]` carries the range beside the type; `ranges.out_of_range` reads it.
Enums have lower-case members because configuration files name members. Where a group has several
options with keys of their own, each has a subclass of the group's schema.
"""
