"""Ray places supervisors on the nodes of a cluster; all else stays in the database. Only here is ray imported.

`authentication`: no cluster without a token. `orders`: what is to be placed. `keeper`: what is always there;
it starts `placement`, the process that speaks to the cluster and dies with its head. `actor`: what runs on a node.
"""
