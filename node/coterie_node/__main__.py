"""`python -m coterie_node` is the command `coterie`."""

import sys

if sys.argv[1:2] == ["take-part"] and "--help" not in sys.argv:
    from coterie_node.demo.site_process import run_site_process

    run_site_process()
else:
    from coterie_node.cli.main import main

    main()
