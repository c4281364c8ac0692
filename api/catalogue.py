"""The rows of models and certificates: each belongs to a project, and is there for nobody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from provenn.api.database import Database
from provenn.api.tables import CertificateRow, DatasetRow, ModelRow


def anything(session: Session) -> None:
    """Whatever is added may be."""


class Catalogue:
    """What has been uploaded and what has been proved."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def model(self, project: str, digest: str) -> ModelRow | None:
        """The model, if the project has it."""
        query = select(ModelRow).where(ModelRow.project_id == project, ModelRow.id == digest)
        with self._database.reading() as session:
            return session.scalar(query)

    def models(self, project: str, limit: int, before: str | None = None) -> Sequence[ModelRow]:
        """The project's newest models, at most `limit`, older than the model `before` where given."""
        query = select(ModelRow).where(ModelRow.project_id == project).order_by(ModelRow.sequence.desc()).limit(limit)
        if before is not None:
            last = select(ModelRow.sequence).where(ModelRow.project_id == project, ModelRow.id == before)
            query = query.where(ModelRow.sequence < last.scalar_subquery())
        with self._database.reading() as session:
            return session.scalars(query).all()

    def add(self, row: ModelRow | DatasetRow, allowed: Callable[[Session], None] = anything) -> bool:
        """Adds one of these, if `allowed` does not raise in the same transaction; False if somebody else just did."""
        try:
            with self._database.writing() as session:
                allowed(session)
                session.add(row)
        except IntegrityError:
            return False
        return True

    def dataset(self, project: str, digest: str) -> DatasetRow | None:
        """The dataset, if the project has it."""
        query = select(DatasetRow).where(DatasetRow.project_id == project, DatasetRow.id == digest)
        with self._database.reading() as session:
            return session.scalar(query)

    def datasets(self, project: str, limit: int, before: str | None = None) -> Sequence[DatasetRow]:
        """The project's newest datasets, likewise."""
        query = select(DatasetRow).where(DatasetRow.project_id == project)
        if before is not None:
            last = select(DatasetRow.sequence).where(DatasetRow.project_id == project, DatasetRow.id == before)
            query = query.where(DatasetRow.sequence < last.scalar_subquery())
        with self._database.reading() as session:
            return session.scalars(query.order_by(DatasetRow.sequence.desc()).limit(limit)).all()

    def certificate(self, project: str, digest: str) -> CertificateRow | None:
        """The certificate, if the project has it."""
        with self._database.reading() as session:
            return session.get(CertificateRow, (project, digest))
