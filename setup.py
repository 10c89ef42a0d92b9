"""Build of the distribution; everything declarative is in pyproject.toml.

The package is pure Python over numpy. A compiled extension would be passed here as
`ext_modules`, with its sources under csrc/.
"""

from setuptools import setup

setup()
