// A target of C needs a file of C; all that it gives is in its header.
#include "CZlib.h"
