"""Who belongs to a broker, as one JSON file. In: changes. Out: the roster after them. Pure, no I/O.

The roster is the truth; access list, passwords and revocation list are made from it, whole, each time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import ConfigurationError
from schemas.topics import Role, check_name

_SLACK = timedelta(days=1)  # a broker's clock may be behind


class Proof(Enum):
    """How members prove who they are."""

    CERTIFICATES = "certificates"
    PASSWORDS = "passwords"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Certificate(_Entry):
    """A certificate that was issued; `revoked` says since when it is not good any more."""

    serial: int
    until: datetime
    revoked: datetime | None = None


class Member(_Entry):
    """Someone who was let in. With passwords there is a hash, else there are certificates, newest last."""

    name: str
    role: Role
    certificates: tuple[Certificate, ...] = ()
    password_hash: str | None = Field(None, repr=False)
    revoked: datetime | None = None


class Roster(_Entry):
    """A broker and its members, those that were revoked included."""

    version: int = Field(1, ge=1, le=1)
    hosts: tuple[str, ...] = Field(min_length=1)
    port: int = Field(ge=1, le=65_535)
    bind_address: str
    topic_root: str
    proof: Proof
    server: Certificate
    members: tuple[Member, ...] = ()
    # Certificates that were made for one moment and belong to nobody (see `live`); they must stay revoked.
    spent: tuple[Certificate, ...] = ()

    @property
    def active(self) -> tuple[Member, ...]:
        """Those who are let in."""
        return tuple(member for member in self.members if member.revoked is None)

    @property
    def revoked_serials(self) -> dict[int, datetime]:
        """What the revocation list says: serial numbers and since when."""
        issued = [c for member in self.members for c in member.certificates] + list(self.spent)
        return {c.serial: c.revoked for c in issued if c.revoked is not None}

    def member(self, name: str) -> Member:
        """The member of this name that is let in. Raises ConfigurationError where there is none."""
        for member in self.active:
            if member.name == name:
                return member
        if any(member.name == name for member in self.members):
            raise ConfigurationError(f"{name!r} is revoked already")
        raise ConfigurationError(f"there is no {name!r} at this broker; `broker list` shows who is")

    def with_added(self, member: Member) -> Roster:
        """The roster with a new member. Raises ConfigurationError for a name that is taken or unusable."""
        check_name(member.name)
        for existing in self.active:
            if existing.name == member.name:
                raise ConfigurationError(
                    f"there is already {existing.role.value} {member.name!r}; choose another name, "
                    "or make new credentials for it with `broker rotate`"
                )
        return self.model_copy(update={"members": (*self.members, member)})

    def with_changed(self, member: Member) -> Roster:
        """The roster with the active member of this name replaced."""
        members = tuple(member if m.name == member.name and m.revoked is None else m for m in self.members)
        return self.model_copy(update={"members": members})

    def with_spent(self, *certificates: Certificate) -> Roster:
        """The roster that keeps these certificates revoked until they have long expired."""
        now = datetime.now(UTC)
        spent = [c.model_copy(update={"revoked": c.revoked or now}) for c in certificates]
        still_valid = [c for c in self.spent if c.until > now - _SLACK]
        return self.model_copy(update={"spent": (*still_valid, *spent)})


def without_certificates(member: Member, *, now: datetime) -> Member:
    """The member with all certificates it has had so far revoked."""
    revoked = tuple(c.model_copy(update={"revoked": c.revoked or now}) for c in member.certificates)
    return member.model_copy(update={"certificates": revoked})
