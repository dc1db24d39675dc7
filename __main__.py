"""python -m dgdm"""

from .cli import main

main()
