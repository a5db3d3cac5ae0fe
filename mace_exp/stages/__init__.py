"""The stages that every method shares: a stage in `stages=` is a module of that name here, or, if it
is a step of a method, in the method's package."""
