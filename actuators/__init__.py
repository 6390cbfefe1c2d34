"""Moving traffic: small adapters behind one port, and what makes any of them safe.

Read in this order: ``base`` (the port), ``memory`` (the reference adapter), ``checks`` (what every adapter
must do), ``shift`` (one order, carried out crash-safely), ``fence`` (who may write), ``guarded`` (deadlines,
retries, rates), ``envoy`` (a real one).
"""
