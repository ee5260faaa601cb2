"""With whose rights files below the layers directory are touched.

That directory belongs to the user that the phases drop to, who ran other people's buildpacks in it. A shim that is
root and follows a path there could be led anywhere. So it does what that user could do, and no more; the daemon's
connection, which needs the rights, is made elsewhere.
"""

from __future__ import annotations

import os

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Rights(Record):
    """The user that a phase drops to: `-uid` and `-gid`, else `CNB_USER_ID` and `CNB_GROUP_ID`."""

    uid: int = 0
    gid: int = 0

    def within(self, directory: str) -> Acting:
        """Act in a directory with this user's rights, where somebody but root could have planted something there.

        Raises:
            OSError: there is no such directory.

        """
        if os.geteuid() or not self.uid:
            return Acting(None)
        about = os.stat(directory or ".")
        planted = about.st_uid != 0 or about.st_mode & 0o022
        return Acting(self if planted else None)


class Acting:
    """While this is entered, the process has another user's rights, in all of its threads."""

    def __init__(self, user: Rights | None) -> None:
        """Take the user, or None to go on as it is."""
        self.user = user
        self._group = 0
        self._groups: list[int] = []

    def __enter__(self) -> Rights | None:
        """Take on the user's rights, and return the user."""
        if self.user is not None:
            self._group, self._groups = os.getegid(), os.getgroups()
            os.setgroups([])
            os.setegid(self.user.gid)
            os.seteuid(self.user.uid)
        return self.user

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Take root's rights back, in the group that it had."""
        if self.user is not None:
            os.seteuid(0)
            os.setegid(self._group)
            os.setgroups(self._groups)


AS_IT_IS = Rights()
"""No other user's."""
