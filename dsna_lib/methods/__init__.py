"""One file a method, behind one seam: see :mod:`dsna_lib.methods.base`."""
