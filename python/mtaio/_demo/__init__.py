"""`mtaio demo`: the deployment guide at work, with a page to watch and to break it.

`deployment` is the guide's application, wired from the environment and put under
load. Beside it, on a thread of its own, `page` serves what a newcomer sees; the
page asks the native probe thread for its figures. Everything here is written as
a user would write it: on the public modules alone.
"""
