"""TensorRT plans: built from a bundle, kept in a private folder, checked before every use.

A plan is machine code for a graphics card: whoever loads one runs it. So a plan comes only from
here or from a folder that no other user can write, and its hash is checked before the library
sees a byte of it. TensorRT's own validity check finds plans of another version, not tampering.
"""
