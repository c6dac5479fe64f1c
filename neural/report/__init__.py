"""What people look at: pictures, tables and one page of a network beside the optimum.

Only `figures` draws, by the layout of the house; this page is the exception, since it has to come with the command.
"""

from optimal.packages import required

required("a page with pictures", "matplotlib")
